"""However the controller dies between claim and running, the task runs once."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import termios
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.e2e import history
from tests.e2e.conftest import Starter
from tests.e2e.controller import Controller, eventually
from tests.e2e.history import Job
from tests.e2e.homes import write_home
from tests.sshd import SshFleet, SshNode

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into pipes by /proc")


def _serve(node: SshNode) -> int:
    """Return the pid of the `serve` that holds the node's lock."""
    (lock,) = (node.home / "dispatch" / ".dispatch").glob("*/serve.lock")
    return int(json.loads(lock.read_bytes())["pid"])


def _send(number: signal.Signals, pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _unread(pid: int) -> int:
    """Return how many bytes wait in the pipe that is a process's standard input."""
    pipe = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK)
    try:
        waiting = fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4)
    finally:
        os.close(pipe)
    return int.from_bytes(waiting, sys.byteorder)


def _register(controller: Controller, log: Path, nodes: Iterable[str]) -> list[Job]:
    """Register one task for each node, pinned to it by the name of its executor."""
    folder = controller.home.parent / "work"
    folder.mkdir()
    jobs = [Job(f"T-{node}", "once", (), (node,), False, 0.2) for node in nodes]
    for job, node in zip(jobs, nodes, strict=True):
        text = job.markdown(log).replace('"shell"', json.dumps(node))
        (folder / f"{job.id}.md").write_text(text)
    assert controller.register(folder)["registered"] == len(jobs)
    return jobs


def test_a_start_in_a_stopped_serve_whose_channel_is_lost_runs_once(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    node = ssh_fleet.add("n1")
    log = tmp_path / "tasks.log"
    controller = controller_on(write_home(tmp_path / "home", {"n1": 1}, ssh_fleet)).start()
    eventually(lambda: controller.json("nodes")[0]["reachable"], 20, controller.said)
    old = _serve(node)
    _send(signal.SIGSTOP, [old])
    jobs = _register(controller, log, ["n1"])
    controller.wait("T-n1", "claimed")
    eventually(lambda: _unread(old), 10, controller.said)
    node.kill_sessions()
    _send(signal.SIGCONT, [old])  # it may read the order still, in a race with its successor
    controller.wait_all(30)
    assert controller.counts() == {"completed": 1}
    assert history.violations(jobs, history.read(log)) == []


FAULTS = ("stopped-serve", "late-serve", "stopped-sshd", "lost-order", "lost-answer")


def test_each_point_between_claim_and_running_survives_kill_9_and_the_task_runs_once(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    """One task on each node; each node holds its start at another point when the kill comes."""
    nodes = {name: ssh_fleet.add(name) for name in FAULTS}
    log = tmp_path / "tasks.log"
    home = write_home(tmp_path / "home", dict.fromkeys(FAULTS, 1), ssh_fleet)
    controller = controller_on(home).start()
    controller.reach(len(FAULTS))
    serves = {name: _serve(node) for name, node in nodes.items()}
    sessions = {name: node.sessions() for name, node in nodes.items()}
    held_in_serve = ("stopped-serve", "late-serve", "lost-answer")
    _send(signal.SIGSTOP, [serves[name] for name in held_in_serve])
    for name in ("stopped-sshd", "lost-order"):
        _send(signal.SIGSTOP, sessions[name])

    jobs = _register(controller, log, FAULTS)
    for job in jobs:
        controller.wait(job.id, "claimed")
    for name in held_in_serve:
        eventually(lambda: _unread(serves[name]), 10, controller.said)  # noqa: B023
    # The answer to a start that was made waits unread in the controller's socket.
    _send(signal.SIGSTOP, [controller.pid])
    _send(signal.SIGCONT, [serves["lost-answer"]])
    eventually(lambda: history.started(log) == 1, 20, lambda: nodes["lost-answer"].log)
    controller.kill()
    _send(signal.SIGKILL, sessions["lost-order"])
    for name in ("stopped-serve", "late-serve"):
        _send(signal.SIGKILL, sessions[name])
    _send(signal.SIGCONT, [serves["late-serve"]])  # starts it with no controller anywhere

    controller.start()
    for name in ("stopped-serve", "lost-order", "late-serve", "lost-answer"):
        controller.wait(f"T-{name}", "completed")
    _send(signal.SIGCONT, [serves["stopped-serve"], *sessions["stopped-sshd"]])
    controller.wait_all(30)

    assert controller.counts() == {"completed": len(FAULTS)}
    assert history.violations(jobs, history.read(log)) == []
    assert {controller.task(job.id)["attempt"] for job in jobs} <= {1, 2}
    assert controller.errors() == []
