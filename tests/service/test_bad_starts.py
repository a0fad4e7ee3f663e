"""What keeps a controller from starting: one message that says what to do, and its exit code."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from dispatch_controller.home import Home, lock_home
from tests.e2e.controller import Controller, environment

pytestmark = pytest.mark.slow


def start(home: Path, *arguments: str, port: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "dispatch_controller", "run"),
            *("--home", str(home), "--port", str(port), *arguments),
        ],
        capture_output=True,
        text=True,
        env=environment({"HOME": str(home.parent)}),
        timeout=60,
        check=False,
    )


def refused(result: subprocess.CompletedProcess[str], code: int, *texts: str) -> None:
    """One message, no traceback, nothing on standard output, and the code that is documented."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "mistake in the program" not in result.stderr
    message = [line for line in result.stderr.splitlines() if not line.startswith("{")]
    assert len(message) == 1, result.stderr
    for text in texts:
        assert text in message[0]


def test_a_second_start_on_one_home(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    with lock_home(home):
        refused(start(home.root), 75, f"pid {os.getpid()}", "stop it first")


def test_the_lock_of_a_killed_controller_is_no_hindrance(tmp_path: Path) -> None:
    controller = Controller(tmp_path / "home", extra={"HOME": str(tmp_path)})
    try:
        controller.start()
        os.kill(controller.pid, signal.SIGKILL)
        controller.close()
        assert (tmp_path / "home" / "controller.lock").exists()
        controller = Controller(tmp_path / "home", extra={"HOME": str(tmp_path)})
        controller.start()
        status, _ = controller.terminate()
    finally:
        controller.close()
    assert status == 0


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A disk of its own, of 1 MiB."""
    place.mkdir()
    mount = shutil.which("mount")
    argv = [mount or "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False) if mount else None
    if done is None or done.returncode != 0:
        pytest.skip(f"needs the right to mount: {done.stderr.strip() if done else 'no mount'}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(descriptor, b"x" * 4096):
            pass
    except OSError:
        return
    finally:
        os.close(descriptor)


def test_a_home_on_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        (disk / "home").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        refused(start(disk / "home"), 78, str(disk / "home"), "Read-only file system")


@pytest.mark.parametrize("left", [0, 16, 64])
def test_a_home_on_a_full_disk(tmp_path: Path, left: int) -> None:
    with small_disk(tmp_path / "disk") as disk:
        Home(disk / "home").prepare()
        fill(disk / "fill")
        size = (disk / "fill").stat().st_size
        os.truncate(disk / "fill", size - left * 1024)
        refused(start(disk / "home"), 78, str(disk / "home"))


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused(start(tmp_path / "home", port=port), 78, f"port {port}", "--port")


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dispatch.toml").write_text('api_token = "s3cret-s3cret"\n')
    refused(start(home, "--host", "192.0.2.1"), 78, "192.0.2.1")


def test_a_database_of_another_program(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with closing(sqlite3.connect(home / "dispatch.db")) as conn, conn:
        conn.execute("CREATE TABLE tasks (id)")
    before = (home / "dispatch.db").read_bytes()
    refused(start(home), 78, "missing", "table events", "column tasks.status")
    assert (home / "dispatch.db").read_bytes() == before


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dispatch.db").write_text("these are no tables " * 100)
    refused(start(home), 78, "file is not a database", "doctor")


def test_without_a_nodes_file_it_serves_and_says_what_is_missing(tmp_path: Path) -> None:
    controller = Controller(tmp_path / "home", extra={"HOME": str(tmp_path)})
    try:
        controller.start()
        status, _ = controller.terminate()
    finally:
        controller.close()
    assert status == 0
    assert f"no {tmp_path}/home/nodes.json: nothing runs until it is written" in controller.said()
