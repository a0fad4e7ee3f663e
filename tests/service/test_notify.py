"""Readiness and watchdog, with a stand-in for systemd's socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from dispatch_controller.service.notify import Notifier, notifier, watchdog


@dataclass
class Stoppable:
    stop: trio.Event = field(default_factory=trio.Event)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.setblocking(False)
        yield end


def heard(manager: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(manager.recv(4096).decode())
        except BlockingIOError:
            return messages


async def test_ready_alive_at_half_the_limit_and_stopping(
    manager: socket.socket, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    context = Stoppable()
    environ = {
        "NOTIFY_SOCKET": manager.getsockname(),
        "WATCHDOG_USEC": "60000000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    nursery.start_soon(watchdog, context, environ)
    await trio.sleep(95)
    assert heard(manager) == ["READY=1", *["WATCHDOG=1"] * 4]
    context.stop.set()
    await trio.sleep(30)
    # Signs of life go on, since the shutdown may take its grace.
    assert heard(manager) == ["STOPPING=1", "WATCHDOG=1"]
    nursery.cancel_scope.cancel()


async def test_an_event_loop_that_stands_still_is_silent(
    manager: socket.socket, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "2000000"}
    nursery.start_soon(watchdog, Stoppable(), environ)
    await trio.testing.wait_all_tasks_blocked()
    assert heard(manager) == ["READY=1", "WATCHDOG=1"]
    mock_clock.jump(10)  # time goes by, and no task gets a turn
    assert heard(manager) == []
    nursery.cancel_scope.cancel()


async def test_without_a_watchdog_only_readiness_is_told(
    manager: socket.socket, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    context = Stoppable()
    nursery.start_soon(watchdog, context, {"NOTIFY_SOCKET": manager.getsockname()})
    await trio.sleep(600)
    context.stop.set()
    await trio.testing.wait_all_tasks_blocked()
    assert heard(manager) == ["READY=1", "STOPPING=1"]


async def test_without_systemd_nothing_happens() -> None:
    await watchdog(Stoppable(), {})
    await watchdog(Stoppable(), {"NOTIFY_SOCKET": "vsock:2:1"})


def test_a_watchdog_of_another_process_is_not_ours() -> None:
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    assert notifier(environ, 2) == Notifier("/run/x", None)
    assert notifier(environ, 1) == Notifier("/run/x", 0.5)


def test_a_manager_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    assert Notifier(str(tmp_path / "nobody"), None).send("READY=1") is False


def test_a_socket_of_the_abstract_kind_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind("")  # Linux chooses an abstract name
        name = end.getsockname()
        assert Notifier("@" + name[1:].decode(), None).send("READY=1")
        assert end.recv(64) == b"READY=1"


def test_a_full_queue_does_not_block(manager: socket.socket) -> None:
    sender = Notifier(manager.getsockname(), None)
    assert not all(sender.send("WATCHDOG=1") for _ in range(5000))
