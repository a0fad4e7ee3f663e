"""What was acknowledged is kept, also when the controller dies right after its answer."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx

from tests.e2e import history
from tests.e2e.conftest import Starter
from tests.e2e.controller import Controller, eventually
from tests.e2e.history import Job
from tests.e2e.homes import makes, write_home, write_spec
from tests.sshd import SshFleet

WANTED = 200
CALLERS = 8


def test_tasks_acknowledged_over_http_survive_kill_9_and_run_once(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    ssh_fleet.add("n1")
    log = tmp_path / "tasks.log"
    controller = controller_on(write_home(tmp_path / "home", {"n1": 40}, ssh_fleet)).start()
    # More than are waited for, so that some are under way at the moment of the kill.
    bodies = [_body(f"A{number:03}", log) for number in range(WANTED + 4 * CALLERS)]
    acknowledged = _acknowledged(controller, "/api/v1/tasks", bodies, WANTED, "id")

    controller.start()
    assert set(acknowledged) <= set(controller.tasks())
    # One that was killed between its spec file and its row is registered now; none is lost.
    written = sorted(path.stem for path in (controller.home / "specs" / "http").glob("*.md"))
    done = {"completed": len(written)}
    eventually(lambda: controller.counts() == done, 90, controller.counts)
    jobs = [Job(task_id, "http", (), (task_id,), False, 0.0) for task_id in written]
    assert history.violations(jobs, history.read(log)) == []


def test_reports_acknowledged_to_a_worker_survive_kill_9(
    controller_on: Starter, tmp_path: Path
) -> None:
    controller = controller_on(write_home(tmp_path / "home", {"w1": WANTED})).start()
    worker = {"node_id": "w1", "slots_free": WANTED, "max_slots": WANTED}
    assert controller.answer("POST", "/v1/poll", json=worker).json()["tasks"] == []
    for number in range(WANTED):
        write_spec(tmp_path / "work", f"R{number:03}", makes())
    controller.register(tmp_path / "work")
    held: dict[str, dict[str, Any]] = {}
    while len(held) < WANTED:
        listed = controller.answer("POST", "/v1/poll", json=worker).json()["tasks"]
        held |= {task["task_id"]: task for task in listed}
    running = [{"task_id": name, "lease_owner": task["lease_owner"]} for name, task in held.items()]
    beaten = controller.answer("POST", "/v1/heartbeat", json={**worker, "running_tasks": running})
    assert beaten.json()["kill"] == []

    reports = [
        {
            "node_id": "w1", "task_id": name, "status": "COMPLETED", "ok": True,
            "lease_owner": task["lease_owner"], "result": {"ok": True, "stdout": "fine"},
        }
        for name, task in held.items()
    ]  # fmt: skip
    acknowledged = _acknowledged(controller, "/v1/task_report", reports, WANTED // 2, "task_id")

    controller.start()
    rows = controller.tasks()
    assert {rows[name]["status"] for name in acknowledged} == {"completed"}
    for report in reports:  # the worker tells all of them again: each counts once
        told = controller.answer("POST", "/v1/task_report", json=report).json()
        assert told["accepted"] is not (rows[report["task_id"]]["status"] == "completed"), told
    assert controller.counts() == {"completed": WANTED}
    ends = [controller.events(name).count("task_completed") for name in held]
    assert ends == [1] * WANTED


def _body(task_id: str, log: Path) -> dict[str, Any]:
    text = Job(task_id, "http", (), (), False, 0.01).markdown(log)
    return {
        "project": "http",
        "task_id": task_id,
        "executor": "shell",
        "modifies": [task_id],
        "body": text.split("---\n", 2)[2],
    }


def _acknowledged(
    controller: Controller, path: str, bodies: list[dict[str, Any]], wanted: int, key: str
) -> list[str]:
    """Post the bodies from several callers at once; kill -9 when `wanted` were acknowledged.

    Returns what every answered request was about.
    """
    written: SimpleQueue[str] = SimpleQueue()

    def call(some: list[dict[str, Any]]) -> None:
        with (
            httpx.Client(base_url=controller.url, timeout=30) as client,
            contextlib.suppress(httpx.TransportError),  # the kill
        ):
            for body in some:
                answer = client.post(path, json=body).raise_for_status().json()
                written.put(answer.get("data", answer)[key])

    with ThreadPoolExecutor(CALLERS) as pool:
        calls = [pool.submit(call, bodies[number::CALLERS]) for number in range(CALLERS)]
        acknowledged = [written.get(timeout=60) for _ in range(wanted)]
        controller.kill()
        for done in calls:
            done.result()
    while not written.empty():
        acknowledged.append(written.get())
    return acknowledged
