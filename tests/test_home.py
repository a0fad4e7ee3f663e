"""The home: layout, one controller at a time, controller.json, the owner's id."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dispatch_controller.home import (
    Controller,
    Home,
    HomeError,
    HomeInUse,
    lock_home,
    owner_id,
    read_controller,
    remove_controller,
    unusable,
    write_controller,
)

HOLD = """
import sys, time
from pathlib import Path
from dispatch_controller.home import Home, lock_home
lock = lock_home(Home(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def test_a_new_home_has_its_folders_and_is_private(tmp_path: Path) -> None:
    home = Home(tmp_path / "deep" / "home")
    home.prepare()
    home.prepare()
    assert {path.name for path in home.root.iterdir()} == {"guardian_alerts", "snapshots", "logs"}
    assert home.root.stat().st_mode & 0o077 == 0


def test_a_home_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="file/home: Not a directory: a file is in the place"):
        Home(tmp_path / "file" / "home").prepare()


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EROFS, "mount it writable"),
        (errno.EACCES, "give it to this user"),
        (errno.ENOSPC, "make room"),
        (errno.EIO, "mend that"),
    ],
)
def test_a_home_that_cannot_be_used_says_what_to_do(number: int, advice: str) -> None:
    told = str(unusable(Path("/home"), OSError(number, os.strerror(number), "/home/logs")))
    assert told.startswith(f"/home/logs: {os.strerror(number)}: ")
    assert advice in told


def test_a_second_controller_is_refused_and_told_the_pid_of_the_first(home: Home) -> None:
    argv = [sys.executable, "-c", HOLD, str(home.root)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(HomeInUse, match=f"pid {first.pid}") as caught:
            lock_home(home)
        assert caught.value.pid == first.pid
        first.send_signal(signal.SIGKILL)
        first.wait()
    with lock_home(home):
        assert home.lock.read_text() == f"{os.getpid()}\n"


def test_the_lock_goes_with_close_and_children_do_not_keep_it(home: Home) -> None:
    lock = lock_home(home)
    argv = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, close_fds=False) as child:
        assert child.stdout is not None
        child.stdout.readline()
        lock.close()
        lock.close()
        lock_home(home).close()
        child.communicate()


def test_controller_json_says_where_the_controller_is(home: Home) -> None:
    assert read_controller(home) is None
    controller = Controller(os.getpid(), "http://127.0.0.1:8080", "2026-01-01T00:00:00+00:00", "1")
    write_controller(home, controller)
    assert read_controller(home) == controller
    assert [path.name for path in home.root.iterdir() if "controller" in path.name] == [
        "controller.json"
    ]
    remove_controller(home)
    assert read_controller(home) is None
    remove_controller(home)


def test_controller_json_of_another_process_is_left(home: Home) -> None:
    write_controller(home, Controller(os.getpid() + 1, "http://x", "", "1"))
    remove_controller(home)
    assert read_controller(home) is not None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "url": ""}'])
def test_a_damaged_controller_json_is_named(home: Home, content: str) -> None:
    home.controller.write_text(content)
    with pytest.raises(HomeError, match=r"controller\.json is damaged"):
        read_controller(home)


def test_the_owner_is_16_hex_digits_and_stays(home: Home) -> None:
    owner = owner_id(home)
    assert re.fullmatch("[0-9a-f]{16}", owner)
    assert owner_id(home) == owner
    assert sorted(path.name for path in home.root.iterdir() if path.is_file()) == ["owner"]


def test_two_that_make_the_owner_at_once_agree(home: Home) -> None:
    code = (
        "import sys; from pathlib import Path; from dispatch_controller.home import Home, owner_id;"
        "print(owner_id(Home(Path(sys.argv[1]))))"
    )
    made: list[str] = []

    def make() -> None:
        argv = [sys.executable, "-c", code, str(home.root)]
        made.append(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4
    assert len(set(made)) == 1


def test_a_damaged_owner_is_not_replaced(home: Home) -> None:
    home.owner.write_text("short\n")
    with pytest.raises(HomeError, match="no id of 16 hex digits"):
        owner_id(home)
    assert home.owner.read_text() == "short\n"
