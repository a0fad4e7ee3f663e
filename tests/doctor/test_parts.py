"""The parts of doctor that read what others print."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dispatch_controller.doctor import holders
from dispatch_controller.doctor.node_script import BEGIN, END, read_answer
from dispatch_controller.service.former import named_in
from tests.doctor.conftest import Place


@pytest.mark.parametrize(
    ("command", "label"),
    [
        ("python3 /opt/dispatch/guardian.py", "com.oyster.guardian"),
        ("/usr/bin/python reaper_daemon.py --interval 60", "com.oyster.reaper"),
        ("python -m dispatch.factory", "com.oyster.factory"),
        ("/usr/local/bin/factory-loop", "com.oyster.factory"),
        ("python3 scheduler.py", None),
        ("vim guardian_notes.md", None),
        ("python factory_reset_tool.py", None),
        ("python -m dispatch_controller run", None),
    ],
)
def test_a_former_daemon_is_known_by_its_name(command: str, label: str | None) -> None:
    assert named_in(command) == label


def answer(*lines: str) -> str:
    return "\n".join(["Welcome!", BEGIN, *lines, END, "bye"])


def test_a_node_that_tells_everything_is_understood() -> None:
    found = read_answer(
        answer(
            "now 1700000000",
            "python 3.9.2",
            "program git",
            "program claude",
            "disk 75 25",
            "wrapper abc",
            "own-wrapper",
        )
    )
    assert found is not None
    assert (found.now, found.python, found.wrapper) == (1.7e9, (3, 9, 2), "abc")
    assert found.programs == {"git", "claude"}
    assert (found.disk_used, found.disk_free, found.readonly) == (75, 25, None)
    assert found.own_wrapper


def test_what_a_node_cannot_tell_is_not_made_up() -> None:
    found = read_answer(answer("now %s", "python ", "disk - -", "readonly /mnt"))
    assert found is not None
    assert (found.now, found.python, found.wrapper) == (None, (), None)
    assert (found.disk_used, found.disk_free, found.readonly) == (None, None, "/mnt")
    assert read_answer(answer()) is not None


@pytest.mark.parametrize("output", ["", "Welcome!\n", f"{BEGIN}\nnow 1700000000\n", END])
def test_an_answer_that_was_cut_off_is_none(output: str) -> None:
    assert read_answer(output) is None


@pytest.mark.parametrize("look", [holders._from_proc, holders._from_lsof])
def test_who_holds_a_file_is_found_on_both_systems(
    place: Place, look: holders.Looker, tmp_path: Path
) -> None:
    if look is holders._from_lsof and shutil.which("lsof") is None:
        message = "needs lsof (apt-get install lsof)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    if look is holders._from_proc and not Path("/proc/self/fd").is_dir():
        pytest.skip("this system has no /proc")
    hold = "import sys; file = open(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", hold, str(place.home.database)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        found = list(look([place.home.database]))
        other.communicate()
    assert [holder.pid for holder in found] == [other.pid]
    assert str(place.home.database) in found[0].command
