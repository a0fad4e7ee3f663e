"""Which nodes are served by their worker: chosen anew only while nothing runs there."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from dispatch_controller.fleet.listing import RunningTask
from dispatch_controller.loops.ways import follow_ways, recall_ways
from dispatch_controller.loops.workers import HEARD_WITHIN, Message, WorkerRegistry
from dispatch_controller.model import Node
from dispatch_controller.store import nodes
from dispatch_controller.store.connection import get_db
from dispatch_controller.store.writer import Connection
from tests.loops.world import World


def heard(registry: WorkerRegistry, at: float, *running: RunningTask, poll: bool = False) -> None:
    url = None if poll else "http://10.0.0.1:8081"
    registry.heard(Message("n", "10.0.0.1", at, worker_url=url, running_tasks=running, poll=poll))


def test_a_worker_is_wanted_by_name_by_heartbeat_or_by_poll() -> None:
    registry = WorkerRegistry()
    assert not registry.wanted("n", 1000)
    heard(registry, 1000)
    assert registry.wanted("n", 1000 + HEARD_WITHIN)
    assert not registry.wanted("n", 1001 + HEARD_WITHIN)
    heard(registry, 2000, poll=True)
    assert registry.wanted("n", 2000)
    registry.configured = {"n": "http://mini:8081"}
    assert registry.wanted("n", 9000)
    assert registry.url("n", 9000) == "http://mini:8081"
    registry.configured = {"n": "poll"}
    assert registry.wanted("n", 9000)
    assert registry.url("n", 9000) is None
    assert registry.pulls("n", 9000)


@pytest.fixture
def watched(world: World) -> World:
    world.node("n", slots=1)
    return world


async def chosen(world: World) -> bool:
    """Look once, as the scheduling loop does before each pass."""
    context = world.context
    await follow_ways(context)
    return context.workers.serves("n")


async def test_the_way_changes_only_while_the_node_holds_no_task(
    watched: World, autojump_clock: trio.testing.MockClock
) -> None:
    async with watched.controller() as context:
        watched.spec("S1")
        await watched.until(60, S1="running")
        heard(context.workers, watched.clock.wall())
        assert not await chosen(watched)
        assert "n" in context.workers.changing(["n"], watched.clock.wall())
        watched.spec("S2")  # and no new task goes there meanwhile
        while watched.status()["S1"] == "running":
            heard(context.workers, watched.clock.wall())
            await trio.sleep(10)
        assert watched.status()["S1"] == "completed"
        await trio.sleep(10)
        assert context.workers.serves("n")


async def test_a_silent_worker_keeps_its_node_while_it_holds_a_task(
    watched: World, autojump_clock: trio.testing.MockClock
) -> None:
    """Another way would find no process, and have the task run twice."""
    context = watched.build()
    async with trio.open_nursery() as nursery:
        await nursery.start(context.store.run)
        context.knowledge.nodes = {"n": a_row(watched)}
        heard(context.workers, watched.clock.wall(), poll=True)
        assert await chosen(watched)
        hold(watched.db)
        await trio.sleep(HEARD_WITHIN + 1)
        assert await chosen(watched)
        # Nor does a restart forget it.
        again = watched.build()
        nursery.start_soon(again.store.run)
        await recall_ways(again)
        again.knowledge.nodes = dict(context.knowledge.nodes)
        assert await chosen(watched)
        release(watched.db)
        assert not await chosen(watched)
        nursery.cancel_scope.cancel()


def a_row(world: World) -> Node:
    with get_db(world.db) as conn:
        return nodes.all_nodes(Connection(conn))[0]


def hold(database: Path) -> None:
    """Have the node hold a task, as a claim does."""
    with get_db(database) as conn:
        conn.execute(
            "INSERT INTO tasks (id, project, spec_file, status, node, lease_owner)"
            " VALUES ('T1', 'p', 'x.md', 'running', 'n', 'n:00000001')"
        )


def release(database: Path) -> None:
    with get_db(database) as conn:
        conn.execute("UPDATE tasks SET status = 'completed' WHERE id = 'T1'")


async def test_a_node_gets_no_more_than_its_worker_has_slots(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.node("n", slots=4)
    async with world.controller() as context:
        for number in range(1, 5):
            world.spec(f"S{number}")
        registry, at = context.workers, world.clock.wall()
        registry.configured = {"n": "poll"}
        registry.heard(Message("n", "10.0.0.1", at, max_slots=2, running_tasks=(), poll=True))
        await trio.sleep(45)
        assert sorted(world.status().values()) == ["claimed", "claimed", "pending", "pending"]
