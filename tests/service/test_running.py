"""The real controller under a stand-in for systemd's notify socket."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path

from dispatch_controller.home import Home
from tests.e2e.controller import Controller


def receive(end: socket.socket) -> str:
    ready, _, _ = select.select([end], [], [], 30)
    assert ready, "nothing was told to the service manager"
    return end.recv(4096).decode()


def test_systemd_is_told_when_it_serves_that_it_lives_and_that_it_stops(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    home.nodes.write_text('[{"name": "here", "executor": "shell"}]')
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        environ = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "400000",
            "HOME": str(tmp_path),
        }
        controller = Controller(home.root, extra=environ)
        try:
            controller.start()
            assert receive(manager) == "READY=1"
            assert [receive(manager) for _ in range(3)] == ["WATCHDOG=1"] * 3
            status, seconds = controller.terminate()
        finally:
            controller.close()
        rest = []
        while select.select([manager], [], [], 0)[0]:
            rest.append(manager.recv(4096).decode())
    assert status == 0
    assert seconds < 5
    assert "STOPPING=1" in rest
    assert set(rest) <= {"STOPPING=1", "WATCHDOG=1"}


def test_without_systemd_it_runs_all_the_same(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert "NOTIFY_SOCKET" not in os.environ
    controller = Controller(home.root, extra={"HOME": str(tmp_path)})
    try:
        controller.start()
        status, _ = controller.terminate()
    finally:
        controller.close()
    assert status == 0
