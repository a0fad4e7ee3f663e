"""The command init: by options, and by questions on a real terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from dispatch_controller.home import Home
from tests.cli.conftest import Run

SPEC = "---\ntask_id: S01\nmodifies: [a.py]\nexecutor: shell\n---\n# One\n"


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home that does not exist yet, and a folder of specs in `specs`."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "df").write_text("#!/bin/sh\necho /dev/disk 1000 500 500 50% /\n")
    (programs / "df").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("CONTROLLER_PORT", "0")
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "S01.md").write_text(SPEC)
    return Home(tmp_path / "new home")


def test_options_make_a_home_that_doctor_finds_well(run: Run, new: Home, tmp_path: Path) -> None:
    arguments = ["init", "--home", str(new.root), "--node", "here", "--slots", "3"]
    arguments += ["--specs", str(tmp_path / "specs"), "--project", "shop"]
    result = run(*arguments)
    assert result.code == 0, result.out + result.err
    assert "nothing to mend" in result.out
    assert f"dispatch-controller run --home '{new.root}'" in result.out
    assert json.loads(new.nodes.read_text()) == [{"name": "here", "slots": 3, "executor": "shell"}]
    assert json.loads(new.projects.read_text()) == {"shop": {"specs_dir": str(tmp_path / "specs")}}
    result = run(*arguments)
    assert result.code == 0
    assert f"kept {new.nodes}" in result.out


def test_without_options_and_terminal_this_machine_is_the_node(
    run: Run, new: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        result = run("init", "--home", str(new.root), "--executor", "shell")
    assert result.code == 0
    assert json.loads(new.nodes.read_text())[0]["name"] == "here"


def test_a_node_that_is_not_there_makes_the_home_and_ends_with_1(run: Run, new: Home) -> None:
    result = run("init", "--home", str(new.root), "--node", "far=127.0.0.1:1")
    assert result.code == 1
    assert "far: cannot be reached" in result.out
    assert new.nodes.exists()


def test_a_node_that_cannot_be_named_so_is_a_usage_error(run: Run, new: Home) -> None:
    result = run("init", "--home", str(new.root), "--node", "a b=mini")
    assert result.code == 2
    assert not new.root.exists()


def test_on_a_terminal_it_asks(new: Home, tmp_path: Path) -> None:
    (tmp_path / "user" / ".ssh").mkdir(parents=True)
    (tmp_path / "user" / ".ssh" / "config").write_text("Host alpha beta\n")
    answers = [
        str(new.root),
        str(tmp_path / "nowhere"),
        str(tmp_path / "specs"),
        "shop",
        "",
        "",
        "4",
        "me@127.0.0.1:1",
        "6",
    ]
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "dispatch_controller", "init"],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as asking:
        os.close(terminal)
        os.write(controller, "".join(f"{answer}\n" for answer in answers).encode())
        out, err = asking.communicate(timeout=60)
    os.close(controller)
    assert "nowhere is not a folder" in out
    assert "hosts in ~/.ssh/config: alpha beta" in out
    assert asking.returncode == 1, out + err  # the second machine is not there
    assert json.loads(new.nodes.read_text()) == [
        {"name": "here", "slots": 4, "executor": "shell"},
        {"name": "127.0.0.1-1", "ssh_host": "me@127.0.0.1:1", "slots": 6, "executor": "shell"},
    ]
    assert json.loads(new.projects.read_text()) == {"shop": {"specs_dir": str(tmp_path / "specs")}}
