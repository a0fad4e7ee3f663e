"""/metrics, /health and /ready."""

from __future__ import annotations

from pathlib import Path

import trio
from prometheus_client.parser import text_string_to_metric_families

from dispatch_controller.core.times import iso
from dispatch_controller.fleet.traffic import Traffic
from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.store.connection import get_db
from tests.web.serving import Serving

Samples = dict[tuple[str, frozenset[str]], float]


async def scrape(door: Serving) -> Samples:
    """Return every sample by name and label values."""
    answer = await door.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, *labels: str) -> float:
    return samples[f"dispatch_{name}", frozenset(labels)]


async def test_what_happens_is_counted_once(door: Serving) -> None:
    await door.add_node("w1")
    await door.add_tasks("A", "B")
    await scrape(door)
    leases = await door.running("w1", "A", "B")
    for task, status in (("A", "COMPLETED"), ("B", "FAILED")):
        await door.post(
            "/v1/task_report", node_id="w1", task_id=task, status=status, ok=status == "COMPLETED",
            lease_owner=leases[task],
        )  # fmt: skip
    await door.post("/api/v1/tasks/B/cancel")
    for _ in range(2):
        samples = await scrape(door)
        assert value(samples, "tasks", "completed") == 1
        assert value(samples, "tasks", "deadletter") == 1
        assert value(samples, "dispatches_total") == 2
        assert value(samples, "starts_total") == 2
        assert value(samples, "completions_total") == 1
        assert value(samples, "failures_total", "unknown") == 1
        assert value(samples, "deadletters_total") == 1
        assert value(samples, "dispatch_latency_seconds_count") == 2
        assert value(samples, "report_latency_seconds_count") == 1
        assert 0 < value(samples, "dispatch_latency_seconds_sum") < 20


async def test_a_task_is_runnable_when_its_last_dependency_is_done(door: Serving) -> None:
    await door.add_node("w1")
    await door.add_tasks("A")
    await door.add_tasks("B", depends_on=["A"])
    with get_db(door.context.store.path) as conn:
        an_hour_ago = iso(door.context.clock.wall() - 3600)
        conn.execute("UPDATE events SET timestamp = ? WHERE task_id = 'B'", (an_hour_ago,))
    for task in ("A", "B"):
        before = await scrape(door)
        leases = await door.running("w1", task)
        await door.post(
            "/v1/task_report", node_id="w1", task_id=task, status="COMPLETED", ok=True,
            lease_owner=leases[task],
        )  # fmt: skip
    after = await scrape(door)
    name = "dispatch_latency_seconds_sum"
    assert value(after, name) - value(before, name) < 60


async def test_loops_writes_and_nodes_are_measured(door: Serving) -> None:
    await door.add_node("mini", ssh_host="mini", slots=7)
    await door.add_tasks("A")
    stats = door.context.stats["reaper"]
    stats.interval = 60
    stats.succeeded(door.context.clock.wall(), 0.5)
    stats.failed(ValueError("x"))
    samples = await scrape(door)
    assert value(samples, "loop_duration_seconds_count", "reaper") == 1
    assert value(samples, "loop_age_seconds", "reaper") < 5
    assert value(samples, "loop_restarts_total", "reaper") == 1
    assert value(samples, "write_batch_size_count") >= 1
    assert value(samples, "write_queue_wait_seconds_count") >= 1
    assert value(samples, "node_slots", "mini") == 7
    assert value(samples, "node_up", "mini") == 0
    again = await scrape(door)
    assert value(again, "loop_duration_seconds_count", "reaper") == 1


async def test_every_metric_is_described(door: Serving) -> None:
    text = (await door.http.get("/metrics")).text
    described = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")
    families = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    ours = {name for name in families if name.startswith("dispatch_")}
    assert {name for name in ours if f"`{name}" not in described} - _created(ours) == set()


def _created(names: set[str]) -> set[str]:
    """Return the times that prometheus_client adds to counters and histograms."""
    return {name for name in names if name.endswith("_created")}


async def test_calls_of_an_ssh_node_are_counted() -> None:
    traffic = Traffic()
    with traffic.call():
        await trio.lowlevel.checkpoint()
    try:
        with traffic.call():
            raise TransportLost("mini", "gone")
    except TransportLost:
        pass
    seconds, failures = traffic.take()
    assert (len(seconds), failures) == (1, 1)
    assert traffic.take() == ([], 0)


async def test_health_names_what_is_wrong(door: Serving) -> None:
    assert (await door.http.get("/health")).json() == {"status": "OK", "reasons": []}
    stats = door.context.stats["reaper"]
    stats.interval = 1e-9
    answer = await door.http.get("/health")
    assert answer.status_code == 503
    assert answer.json()["status"] == "UNHEALTHY"
    assert "reaper" in answer.json()["reasons"][0]


async def test_ready_until_the_stop(door: Serving) -> None:
    assert (await door.http.get("/ready")).status_code == 200
