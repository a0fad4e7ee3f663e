"""The worker program against the real controller: fetched and pushed, killed, and cut off.

What the tasks themselves wrote down is read, not our database alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Starter
from tests.e2e.controller import Controller, eventually
from tests.e2e.homes import makes, write_home, write_spec
from tests.e2e.worker import WorkerProcess

pytestmark = pytest.mark.slow

Hire = Callable[..., WorkerProcess]
PUSHED = ("--listen", "127.0.0.1:0")


@pytest.fixture
def hire(tmp_path: Path) -> Iterator[Hire]:
    """Return a function that makes a worker (not started yet)."""
    with ExitStack() as running:

        def make(node: str = "w1", **more: Any) -> WorkerProcess:  # noqa: ANN401
            worker = WorkerProcess(node, tmp_path, **more)
            running.callback(worker.close)
            return worker

        yield make


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return write_home(tmp_path / "home", {"w1": 2}, node={"worker_url": "poll"})


def runs(worker: WorkerProcess, task_id: str) -> int:
    """How often the task's own program was started on the worker's machine."""
    trace = worker.folder / f"{task_id}.trace"
    return len(trace.read_text().splitlines()) if trace.exists() else 0


def traced(folder: Path, task_id: str, then: str = "") -> str:
    return f"echo run >> {folder}/{task_id}.trace\n{then}\n{makes()}"


def waits_for(gate: Path) -> str:
    """A script that goes on when a file appears."""
    return f"until test -e {gate}; do sleep 0.05; done"


def ways(controller: Controller) -> dict[str, str]:
    """How each node that answers is reached."""
    rows = controller.get("nodes")
    return {row["name"]: row["way"] for row in rows if row["reachable"]}


def reached(controller: Controller, **wanted: str) -> None:
    """Wait until the nodes are reached in these ways."""
    eventually(lambda: ways(controller) == wanted, 30, lambda: controller.get("nodes"))


@pytest.mark.parametrize("arguments", [(), PUSHED], ids=["polls", "listens"])
def test_a_task_runs_on_a_worker_to_its_end(
    home: Path, tmp_path: Path, controller_on: Starter, hire: Hire, arguments: tuple[str, ...]
) -> None:
    controller = controller_on(home)
    if arguments:  # found by its heartbeat
        write_home(home, {"w1": 2})
    controller.start()
    worker = hire(arguments=arguments).start(controller.url)
    reached(controller, w1="worker")
    write_spec(home / "specs", "S1", traced(tmp_path, "S1"))
    write_spec(home / "specs", "S2", "echo no; exit 3", max_retries=0)
    controller.register(home / "specs")
    row = controller.wait("S1", "completed")
    assert (row["node"], row["attempt"], runs(worker, "S1")) == ("w1", 1, 1)
    assert row["files_changed"] == 1
    assert list((worker.work_dir / "p" / "tasks" / "S1").glob("status.json"))
    failed = controller.wait("S2", "deadletter")
    assert "3" in failed["error"]
    events = controller.task("S1")["events"]
    ended = next(event for event in events if event["event_type"] == "task_completed")
    assert ended["details"]["gates"]["changed"] == "passed"
    assert worker.stop() == 0
    assert controller.terminate()[0] == 0
    assert controller.errors() == []


@pytest.mark.parametrize("arguments", [(), PUSHED], ids=["polls", "listens"])
def test_a_task_outlives_its_worker_and_is_reported_by_the_next(
    home: Path, tmp_path: Path, controller_on: Starter, hire: Hire, arguments: tuple[str, ...]
) -> None:
    if arguments:
        write_home(home, {"w1": 2})
    controller = controller_on(home).start()
    worker = hire(arguments=arguments).start(controller.url)
    reached(controller, w1="worker")
    gate = tmp_path / "gate"
    write_spec(home / "specs", "S1", traced(tmp_path, "S1", waits_for(gate)))
    controller.register(home / "specs")
    before = controller.wait("S1", "running")
    worker.kill()
    gate.touch()
    status = worker.work_dir / "p" / "tasks" / "S1" / "status.json"
    eventually(
        lambda: json.loads(status.read_text())["status"] == "completed", 20, status.read_text
    )
    worker.start(controller.url)
    after = controller.wait("S1", "completed")
    assert (after["lease_owner"], after["attempt"]) == (before["lease_owner"], 1)
    assert runs(worker, "S1") == 1


def test_an_end_during_an_outage_is_reported_afterwards_exactly_once(
    home: Path, tmp_path: Path, controller_on: Starter, hire: Hire
) -> None:
    controller = controller_on(home).start()
    worker = hire().start(controller.url)
    gate = tmp_path / "gate"
    write_spec(home / "specs", "S1", traced(tmp_path, "S1", waits_for(gate)))
    controller.register(home / "specs")
    controller.wait("S1", "running")
    port = str(httpx.URL(controller.url).port)
    controller.kill()
    gate.touch()
    status = worker.work_dir / "p" / "tasks" / "S1" / "status.json"
    eventually(
        lambda: json.loads(status.read_text())["status"] == "completed", 20, status.read_text
    )
    worker.kill()  # and it is not this worker's memory that keeps it
    worker.start(controller.url)
    eventually(lambda: "the controller is not reached" in worker.said(), 20, worker.said)
    controller.start("--port", port)
    row = controller.wait("S1", "completed")
    assert (row["attempt"], runs(worker, "S1")) == (1, 1)
    assert controller.events("S1").count("task_completed") == 1
    acks = worker.work_dir / ".dispatch"
    eventually(lambda: any(path.stat().st_size for path in acks.glob("*/acks")), 20, worker.said)
    assert controller.events("S1").count("task_completed") == 1


def test_a_late_report_of_an_older_lease_is_refused_and_its_process_ended(
    home: Path, tmp_path: Path, controller_on: Starter, hire: Hire
) -> None:
    """The worker is gone for longer than its lease lasts; meanwhile the task ran elsewhere."""
    rows = [
        {"name": "w1", "slots": 1, "executor": "shell", "worker_url": "poll", "priority": 1},
        {"name": "w2", "slots": 1, "executor": "shell", "worker_url": "poll", "priority": 2},
    ]
    (home / "nodes.json").write_text(json.dumps(rows))
    controller = controller_on(home).start()
    first = hire("w1").start(controller.url)
    gate = tmp_path / "gate"
    write_spec(home / "specs", "S1", traced(tmp_path, "S1", waits_for(gate)))
    controller.register(home / "specs")
    before = controller.wait("S1", "running")
    first.kill()
    # What comes of it once the node counts as lost: the attempt is over, and runs elsewhere.
    controller.post("nodes/w1/disable")
    report = {
        "node_id": "w1", "task_id": "S1", "status": "FAILED", "ok": False,
        "lease_owner": before["lease_owner"], "attempt": 1,
        "result": {"error": "connection reset"},
    }  # fmt: skip
    said = controller.answer("POST", "/v1/task_report", json=report).json()
    assert said["accepted"] is True
    second = hire("w2").start(controller.url)
    again = eventually(
        lambda: (row := controller.task("S1"))["status"] == "running" and row, 30,
        lambda: controller.task("S1"),
    )  # fmt: skip
    assert again["lease_owner"] != before["lease_owner"]
    first.start(controller.url)  # finds the old process, and tells of it
    eventually(lambda: "ended, as the controller asks" in first.said(), 30, first.said)
    eventually(lambda: "reported" in first.said(), 40, first.said)
    assert controller.task("S1")["lease_owner"] == again["lease_owner"]
    gate.touch()
    done = controller.wait("S1", "completed")
    assert (done["node"], done["attempt"]) == ("w2", 2)
    assert "stale_report" in controller.events("S1")
    assert second.stop() == 0


def test_a_cancelled_task_is_ended_on_its_worker(
    home: Path, tmp_path: Path, controller_on: Starter, hire: Hire
) -> None:
    controller = controller_on(home).start()
    worker = hire().start(controller.url)
    write_spec(home / "specs", "S1", traced(tmp_path, "S1", "exec sleep 300"))
    controller.register(home / "specs")
    controller.wait("S1", "running")
    controller.post("tasks/S1/cancel")
    controller.wait("S1", "deadletter", timeout=40)
    assert runs(worker, "S1") == 1


def test_ssh_http_and_local_nodes_work_as_one(
    home: Path, tmp_path: Path, controller_on: Starter, hire: Hire, request: pytest.FixtureRequest
) -> None:
    fleet = request.getfixturevalue("ssh_fleet")
    fleet.add("remote")
    write_home(home, {"remote": 1, "here": 1, "fetches": 1, "listens": 1}, fleet)
    entries = json.loads((home / "nodes.json").read_text())
    for entry in entries["nodes"]:
        if entry["name"] == "fetches":
            entry["worker_url"] = "poll"
    (home / "nodes.json").write_text(json.dumps(entries))
    controller = controller_on(home).start()
    hire("fetches", slots=1).start(controller.url)
    hire("listens", slots=1, arguments=PUSHED).start(controller.url)
    reached(controller, remote="ssh", here="local", fetches="worker", listens="worker")
    gate = tmp_path / "gate"
    for number in range(1, 5):
        write_spec(home / "specs", f"S{number}", traced(tmp_path, f"S{number}", waits_for(gate)))
    write_spec(home / "specs", "S9", makes(), depends_on=["S1", "S2", "S3", "S4"])
    controller.register(home / "specs")
    eventually(lambda: controller.counts().get("running") == 4, 30, controller.counts)
    nodes = {row["node"] for row in controller.tasks(status="running").values()}
    assert nodes == {"remote", "here", "fetches", "listens"}
    gate.touch()
    controller.wait_all(40)
    assert controller.counts() == {"completed": 5}
    lines = [(tmp_path / f"S{number}.trace").read_text() for number in range(1, 5)]
    assert lines == ["run\n"] * 4
    assert controller.errors() == []
