"""While a neighbour holds the database's write lock, reading goes on at its usual speed."""

from __future__ import annotations

import trio

from dispatch_controller.store.connection import get_db
from tests.web.serving import Serving

READS = (
    "/v1/status", "/v1/workers", "/health", "/ready", "/metrics", "/api/v1/tasks",
    "/api/v1/tasks/A", "/api/v1/nodes", "/api/v1/projects", "/api/v1/events",
)  # fmt: skip


async def slowest_reads(door: Serving, rounds: int) -> float:
    """Return the seconds the slowest of all reads took."""
    slowest = 0.0
    for _ in range(rounds):
        for path in READS:
            began = trio.current_time()
            assert (await door.http.get(path)).status_code == 200
            slowest = max(slowest, trio.current_time() - began)
    return slowest


async def test_reads_do_not_wait_for_a_neighbour_and_writes_are_kept(door: Serving) -> None:
    await door.add_node("w1")
    await door.add_tasks("A")
    usual = await slowest_reads(door, 3)
    beaten = trio.Event()

    async def beat() -> None:
        answer = await door.post("/v1/heartbeat", node_id="w1", slots_free=1)
        assert answer.status_code == 200
        beaten.set()

    async with trio.open_nursery() as nursery:
        with get_db(door.context.store.path) as conn:
            conn.execute("BEGIN IMMEDIATE")
            nursery.start_soon(beat)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert await slowest_reads(door, 10) < max(0.5, 3 * usual)
            assert not beaten.is_set()
            conn.execute("COMMIT")
        with trio.fail_after(5):
            await beaten.wait()
    assert (await door.data("nodes"))[0]["last_seen"] is not None
