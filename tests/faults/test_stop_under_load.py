"""SIGTERM with starts and writes in flight, once and twice; SIGTERM during a start."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.e2e import history
from tests.e2e.conftest import Starter
from tests.e2e.controller import Controller, eventually
from tests.e2e.history import Job
from tests.e2e.homes import write_home, write_spec
from tests.faults.neighbour import rows, sound, write_lock
from tests.faults.site import reached
from tests.sshd import SshFleet

NODES = ("n1", "n2", "n3")
STARTS = 50
WRITES = 100
WAITING = tuple(f"W{number:03}" for number in range(WRITES))
GRACE = 6
DEPTH = "dispatch_write_queue_depth "


@dataclass
class Load:
    """A controller with starts that hang in their nodes and writes that wait for the database."""

    controller: Controller
    jobs: list[Job]
    log: Path
    stopped: list[int]
    callers: list[threading.Thread] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)

    def let_nodes_go(self) -> None:
        _send(signal.SIGCONT, self.stopped)

    def write(self) -> None:
        """Have clients give up a waiting task each, all at once: a write each."""

        def ask(task: str) -> None:
            url = f"{self.controller.url}/api/v1/tasks/{task}/cancel"
            try:
                self.answers[task] = httpx.post(url, json={}, timeout=60).status_code
            except httpx.TransportError:
                self.answers[task] = 0

        for task in WAITING:
            thread = threading.Thread(target=ask, args=(task,))
            thread.start()
            self.callers.append(thread)

    def answered(self) -> Counter[int]:
        """Return how many got which HTTP status; 0 for none."""
        for thread in self.callers:
            thread.join()
        return Counter(self.answers.values())

    def acknowledged(self) -> set[str]:
        return {task for task, status in self.answers.items() if status == 200}

    def queued(self) -> bool:
        told = self.controller.answer("GET", "/metrics").text
        depth = next(row for row in told.splitlines() if row.startswith(DEPTH))
        return float(depth.split()[-1]) >= WRITES


def _send(number: signal.Signals, pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # a probe may have come to its end
            os.kill(pid, number)


@contextmanager
def under_load(controller_on: Starter, fleet: SshFleet, folder: Path) -> Iterator[Load]:
    """Yield a controller with STARTS starts sent to nodes that stand still."""
    for name in NODES:
        fleet.add(name)
    home = write_home(folder / "home", dict.fromkeys(NODES, 20), fleet)
    controller = controller_on(home)
    controller.extra = {"DISPATCH_GRACE": str(GRACE), "DISPATCH_SSH__COMMAND_TIMEOUT": "60"}
    controller.start()
    eventually(lambda: reached(controller) == len(NODES), 20, controller.said)
    load = Load(controller, [], folder / "tasks.log", [])
    for task in WAITING:
        write_spec(home / "specs" / "web", task, "true", project="web", executor="nobody")
    controller.register(home / "specs")
    nodes = [fleet.nodes[name] for name in NODES]
    load.stopped = [pid for node in nodes for pid in (*node.sessions(), *node.processes())]
    _send(signal.SIGSTOP, load.stopped)
    load.jobs = [Job(f"T{n:02}", "p", (), (f"{n}",), False, 0.2) for n in range(STARTS)]
    work = folder / "work" / "p"
    work.mkdir(parents=True)
    for job in load.jobs:
        (work / f"{job.id}.md").write_text(job.markdown(load.log))
    controller.register(work.parent)
    eventually(
        lambda: controller.counts().get("claimed") == STARTS,
        20,
        controller.counts,
    )
    try:
        yield load
    finally:
        load.let_nodes_go()
        for thread in load.callers:
            thread.join()


def check_adopted(load: Load) -> None:
    """The next start brings every task to its end, and each ran once."""
    load.let_nodes_go()
    controller = load.controller.start()
    ids = {job.id for job in load.jobs}
    eventually(
        lambda: all(controller.task(i)["status"] == "completed" for i in ids), 60, controller.counts
    )
    assert history.violations(load.jobs, history.read(load.log)) == []
    assert controller.errors() == []
    assert "Traceback" not in controller.said()


def ended(controller: Controller) -> tuple[int, float]:
    """Wait for its end; return the exit status and the seconds that took."""
    process, began = controller._ended_client(), time.monotonic()
    assert process.stdout is not None
    status = process.wait(60)
    process.stdout.close()
    return status, time.monotonic() - began


def check_rows(load: Load) -> None:
    """Every row is explained, and what a client was told is in the database."""
    database = load.controller.home / "dispatch.db"
    assert sound(database)
    found = rows(database)
    for task in WAITING:
        told = "deadletter" if task in load.acknowledged() else "pending"
        assert found[task]["status"] == told, found[task]
    for job in load.jobs:
        row = found[job.id]
        assert row["status"] in ("claimed", "running", "completed"), row
        assert str(row["lease_owner"]).startswith(f"{row['node']}:"), row


@pytest.mark.slow
def test_a_stop_with_starts_and_writes_in_flight_loses_nothing(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    with under_load(controller_on, ssh_fleet, tmp_path) as load:
        controller = load.controller
        with write_lock(controller.home / "dispatch.db"):
            load.write()
            eventually(load.queued, 20, controller.said)
            os.kill(controller.pid, signal.SIGTERM)
            eventually(lambda: "stop asked for" in controller.said(), 10, controller.said)
        load.let_nodes_go()
        status, took = ended(controller)
        assert (status, took < GRACE) == (0, True), took
        assert load.answered() == {200: WRITES}
        check_rows(load)
        check_adopted(load)


@pytest.mark.slow
def test_a_second_signal_in_the_middle_of_that_ends_at_once_and_leaves_it_sound(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    with under_load(controller_on, ssh_fleet, tmp_path) as load:
        controller = load.controller
        with write_lock(controller.home / "dispatch.db"):
            load.write()
            eventually(load.queued, 20, controller.said)
            os.kill(controller.pid, signal.SIGTERM)
            eventually(lambda: "stop asked for" in controller.said(), 10, controller.said)
            os.kill(controller.pid, signal.SIGTERM)
            status, took = ended(controller)
        assert (status, took < 2) == (0, True), took
        assert 200 not in load.answered()
        check_rows(load)
        check_adopted(load)


@pytest.mark.slow
def test_a_neighbour_that_never_lets_go_of_the_database_holds_a_stop_up_for_the_grace_only(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    with under_load(controller_on, ssh_fleet, tmp_path) as load:
        controller = load.controller
        load.let_nodes_go()
        with write_lock(controller.home / "dispatch.db"):
            load.write()
            eventually(load.queued, 20, controller.said)
            os.kill(controller.pid, signal.SIGTERM)
            status, took = ended(controller)
            assert (status, took < GRACE + 3) == (0, True), took
        assert 200 not in load.answered()
        check_rows(load)
        check_adopted(load)


@pytest.mark.slow
def test_a_signal_during_a_start_leaves_nothing_behind(
    controller_on: Starter, tmp_path: Path
) -> None:
    """At every point, as near as time can tell; before signals are listened to they just end it."""
    home = write_home(tmp_path / "home", {"here": 2})
    controller = controller_on(home)
    began = time.monotonic()
    controller.start()
    took = time.monotonic() - began
    assert controller.terminate()[0] == 0
    for point in range(12):
        process = controller.launch()
        time.sleep(took * point / 10)
        process.send_signal(signal.SIGTERM)
        status, _ = ended(controller)
        assert status in (0, -signal.SIGTERM)
        assert not status or not (home / "controller.json").exists()
        assert sound(home / "dispatch.db")
    assert "Traceback" not in controller.said()
    assert controller.start().errors() == []
