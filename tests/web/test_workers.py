"""/v1, as workers in the field call it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dispatch_controller.core.times import iso
from tests.web.serving import Serving


async def report(door: Serving, node: str, task: str, **more: object) -> dict[str, Any]:
    body = {"node_id": node, "task_id": task, "status": "COMPLETED", "ok": True, **more}
    answer = await door.post("/v1/task_report", **body)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


@pytest.fixture
async def worker(door: Serving) -> str:
    """A node that polls, with one pending task T1."""
    await door.add_node("w1")
    await door.add_tasks("T1")
    return "w1"


async def test_a_heartbeat_registers_the_worker_and_is_seen(door: Serving) -> None:
    await door.add_node("w1")
    answer = await door.post(
        "/v1/heartbeat", node_id="w1", slots_free=3, max_slots=4, cpu=12.5, mem=60,
        running_tasks=[], timestamp="2026-01-01T00:00:00",
    )  # fmt: skip
    assert answer.status_code == 200
    assert answer.json().keys() == {"status", "node_id", "kill", "timestamp"}
    listed = (await door.http.get("/v1/workers")).json()["workers"]
    assert listed[0] | {"last_seen": ""} == {
        "node_id": "w1", "worker_url": "http://127.0.0.1:8081", "slots_free": 3, "max_slots": 4,
        "cpu": 12.5, "mem": 60.0, "running_tasks": [], "last_seen": "", "alive": True,
    }  # fmt: skip
    assert (await door.data("nodes"))[0]["last_seen"] is not None
    with_url = await door.post("/v1/heartbeat", node_id="w1", worker_url="http://10.0.0.9:99")
    assert with_url.status_code == 200
    assert door.context.workers.url("w1", door.context.clock.wall()) == "http://10.0.0.9:99"
    door.context.workers.configured = {"w1": "http://mini:8081"}
    assert door.context.workers.url("w1", door.context.clock.wall()) == "http://mini:8081"


async def test_polling_fetches_claims_until_they_are_confirmed(door: Serving, worker: str) -> None:
    first = await door.claim(worker, "T1")
    polled = (await door.post("/v1/poll", node_id=worker, slots_free=1)).json()
    assert polled["status"] == "OK"
    task = polled["tasks"][0]
    assert task["lease_owner"] == first["T1"] == door.row("T1")["lease_owner"]
    assert set(task) >= {
        "task_id", "command", "timeout", "cwd", "env", "lease_owner", "spec_content",
        "setup_commands",
    }  # fmt: skip
    assert task["env"]["LEASE"] == first["T1"]
    assert "```sh\ntrue\n```" in task["spec_content"]
    assert door.row("T1")["status"] == "claimed"
    listed = [{"task_id": "T1", "lease_owner": first["T1"], "elapsed": 1.0, "timeout": 60}]
    await door.post("/v1/heartbeat", node_id=worker, running_tasks=listed)
    assert door.row("T1")["status"] == "running"
    assert (await door.post("/v1/poll", node_id=worker, slots_free=1)).json()["tasks"] == []


async def test_a_node_that_polls_is_never_pushed_to(door: Serving, worker: str) -> None:
    machine = door.machines.add(worker)
    leases = await door.claim(worker, "T1")
    assert machine.trace == []
    assert door.row("T1")["lease_owner"] == leases["T1"]
    assert door.row("T1")["status"] == "claimed"


async def test_a_node_that_is_not_known_is_given_nothing(door: Serving, worker: str) -> None:
    await door.claim(worker, "T1")
    answer = await door.post("/v1/poll", node_id="stranger", slots_free=5)
    assert answer.json() == {"status": "OK", "tasks": []}
    assert [w["node_id"] for w in (await door.http.get("/v1/workers")).json()["workers"]] == [
        "stranger",
        "w1",
    ]


async def test_a_heartbeat_renews_leases_and_names_what_must_end(
    door: Serving, worker: str
) -> None:
    leases = await door.running(worker, "T1")
    await door.add_node("w2")
    expires = door.row("T1")["lease_expires_at"]

    async def kill(node: str, *running: dict[str, str]) -> list[str]:
        answer = await door.post("/v1/heartbeat", node_id=node, running_tasks=list(running))
        return answer.json()["kill"]  # type: ignore[no-any-return]

    mine = {"task_id": "T1", "lease_owner": leases["T1"]}
    assert await kill(worker, mine) == []
    assert door.row("T1")["lease_expires_at"] >= expires
    assert await kill(worker, {"task_id": "T1"}) == []
    assert await kill(worker, {"task_id": "nix"}) == ["nix"]
    assert await kill(worker, {"task_id": "T1", "lease_owner": "w1:00000000"}) == ["T1"]
    assert await kill("w2", {"task_id": "T1"}) == ["T1"]
    assert await kill("w2", mine) == ["T1"]
    assert door.row("T1")["node"] == worker
    await door.operator.cancel("T1")
    assert await kill(worker, mine) == ["T1"]


@pytest.mark.parametrize("as_text", [False, True])
async def test_a_report_is_taken_once(door: Serving, worker: str, as_text: bool) -> None:
    leases = await door.running(worker, "T1")
    result: Any = {
        "ok": True, "task_id": "T1", "status": "COMPLETED", "artifacts": [], "stdout": "done",
        "stderr": "", "metrics": {"files_changed": 3}, "error": None, "timestamp": 1.0,
        "protocol_version": "1.0",
    }  # fmt: skip
    body = {
        "result": json.dumps(result) if as_text else result,
        "lease_owner": leases["T1"],
        "attempt": 1,
    }
    assert await report(door, worker, "T1", **body) == {
        "status": "OK", "task_id": "T1", "accepted": True, "reason": "completed",
    }  # fmt: skip
    row = door.row("T1")
    assert (row["status"], row["files_changed"]) == ("completed", 3)
    again = await report(door, worker, "T1", **body)
    assert again["accepted"] is False
    failed = await report(door, worker, "T1", **{**body, "status": "FAILED", "ok": False})
    assert failed["accepted"] is False
    assert door.row("T1") == row


@pytest.mark.parametrize(
    ("said", "status", "error"),
    [
        ({"status": "FAILED", "ok": False, "result": {"error": "boom"}}, "failed", "boom"),
        ({"status": "FAILED", "ok": True}, "failed", "the worker reported FAILED"),
        ({"status": "COMPLETED", "ok": False}, "failed", "the worker reported COMPLETED"),
        ({"status": "COMPLETED", "result": {"ok": False, "stderr": "bad"}}, "failed", "bad"),
        ({"status": "TIMEOUT", "ok": False}, "failed", "ran into its time limit"),
        (
            {"status": "PARSE_ERROR", "ok": False, "result": "half {"},
            "failed",
            "the worker could not read the agent's result: half {",
        ),
        ({"status": "COMPLETED", "result": "plain words"}, "completed", None),
    ],
)
async def test_how_a_report_is_read(
    door: Serving, worker: str, said: dict[str, object], status: str, error: str | None
) -> None:
    leases = await door.running(worker, "T1")
    said = {"ok": True, **said, "lease_owner": leases["T1"]}
    assert (await report(door, worker, "T1", **said))["accepted"] is True
    assert (door.row("T1")["status"], door.row("T1")["error"]) == (status, error)


async def test_a_report_overtakes_the_confirmation(door: Serving, worker: str) -> None:
    leases = await door.claim(worker, "T1")
    answer = await report(door, worker, "T1", lease_owner=leases["T1"])
    assert answer["accepted"] is True
    assert door.row("T1")["status"] == "completed"


async def test_another_lease_changes_nothing(door: Serving, worker: str) -> None:
    await door.running(worker, "T1")
    before = door.row("T1")
    for more in (
        {"lease_owner": "w1:ffffffff"},
        {"lease_owner": before["lease_owner"], "attempt": 9},
        {"node_id": "w2"},
    ):
        answer = await report(door, worker, "T1", **more)
        assert answer["accepted"] is False
        assert answer["reason"]
    assert door.row("T1") == before
    assert door.event_types("T1")[-3:] == ["stale_report"] * 3


async def test_a_report_without_a_lease_counts_only_for_this_attempt(
    door: Serving, worker: str
) -> None:
    await door.running(worker, "T1")
    wall = door.context.clock.wall
    old = await report(door, worker, "T1", timestamp=iso(wall() - 3600))
    assert old["accepted"] is False
    assert (await report(door, worker, "T1", timestamp=iso(wall())))["accepted"] is True


async def test_a_workers_clock_is_taken_as_it_goes(door: Serving, worker: str) -> None:
    """Its heartbeats tell how wrong it is; a report by that clock is as old as it really is."""
    await door.running(worker, "T1")
    wall = door.context.clock.wall
    await door.post("/v1/heartbeat", node_id=worker, timestamp=wall() - 7200)
    late = await report(door, worker, "T1", timestamp=wall() - 7200 - 600)
    assert late["accepted"] is False
    assert (await report(door, worker, "T1", timestamp=wall() - 7200))["accepted"] is True
    assert abs(wall() - door.context.clock.wall()) < 1
    assert 0 <= door.row("T1")["duration_seconds"] < 60


async def test_a_report_on_a_task_that_is_not_there(door: Serving) -> None:
    body = {"node_id": "w1", "task_id": "nix", "status": "COMPLETED", "ok": True}
    answer = await door.post("/v1/task_report", **body)
    assert answer.status_code == 404
    assert answer.json() == {"error": "there is no task 'nix'"}


async def test_status_has_the_fields_of_the_contract(door: Serving, worker: str) -> None:
    body = (await door.http.get("/v1/status")).json()
    assert body.keys() == {
        "status", "version", "uptime", "tasks", "loops", "nodes", "timestamp",
    }  # fmt: skip
    assert body["tasks"]["pending"] == 1
    assert len(body["loops"]) == 7
    assert body["loops"]["reaper"].keys() == {"cycle", "last_ok", "last_error", "restarts"}


async def test_unknown_fields_are_ignored_and_errors_have_the_old_form(door: Serving) -> None:
    assert (await door.post("/v1/heartbeat", node_id="w1", more={"a": 1})).status_code == 200
    answer = await door.post("/v1/heartbeat", node_id=7)
    assert answer.status_code == 422
    assert list(answer.json()) == ["error"]
    assert "node_id" in answer.json()["error"]
