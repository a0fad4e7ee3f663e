"""The checks find what they are for: each is shown one world that breaks its rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from dispatch_controller.model import Cause, TaskRef
from dispatch_controller.store import events, transitions
from dispatch_controller.store.connection import get_db
from dispatch_controller.store.transitions import Ending, NewLease
from dispatch_controller.store.writer import Connection
from tests.fakes import FakeNode, Plan
from tests.loops.world import World
from tests.simulation.history import Violation
from tests.simulation.invariants import Invariants


def void(_: object) -> None: ...


Sabotage = Callable[[World, Connection, FakeNode], object]


def lease_of(world: World, task_id: str = "S1") -> str:
    return str(world.row(task_id)["lease_owner"])


def claim(world: World, conn: Connection, task_id: str, lease: str = "a:0badc0de") -> None:
    held = frozenset(key for key, status in world.status().items() if status == "running")
    new = NewLease(task_id, "a", "shell", lease)
    assert transitions.claim(conn, world.clock.wall(), [new], held)


def lose_a_task(world: World, conn: Connection, machine: FakeNode) -> None:
    conn.execute("DELETE FROM tasks WHERE id = 'S1'")


def change_a_status_without_event(world: World, conn: Connection, machine: FakeNode) -> None:
    now = int(world.clock.wall())
    conn.execute("UPDATE tasks SET status = 'deadletter', updated_at = ? WHERE id = 'S4'", (now,))


def tell_an_end_twice(world: World, conn: Connection, machine: FakeNode) -> None:
    for _ in range(2):
        events.add(
            conn, world.clock.wall(), "task_failed", task_id="S1", lease=lease_of(world),
            cause="node", reason="exit",
        )  # fmt: skip


def complete_what_runs(world: World, conn: Connection, machine: FakeNode) -> None:
    transitions.finish(conn, world.clock.wall(), "S1", lease_of(world), 1, Ending(True), {})


def give_up_what_runs(world: World, conn: Connection, machine: FakeNode) -> None:
    transitions.give_back(
        conn, world.clock.wall(), "S1", lease_of(world), cause=Cause.NODE, why="a hunch"
    )


def use_a_lease_twice(world: World, conn: Connection, machine: FakeNode) -> None:
    claim(world, conn, "S4", lease_of(world))


def leave_a_lock(world: World, conn: Connection, machine: FakeNode) -> None:
    conn.execute("INSERT INTO file_locks VALUES ('x.py', 'S4', '2026-01-01')")


def claim_before_the_parent(world: World, conn: Connection, machine: FakeNode) -> None:
    claim(world, conn, "S2")


def claim_a_held_file(world: World, conn: Connection, machine: FakeNode) -> None:
    claim(world, conn, "S3")


def hold_more_than_slots(world: World, conn: Connection, machine: FakeNode) -> None:
    claim(world, conn, "S4")


def bury_too_early(world: World, conn: Connection, machine: FakeNode) -> None:
    conn.execute("UPDATE tasks SET status = 'deadletter', updated_at = 9e9 WHERE id = 'S4'")
    events.add(conn, world.clock.wall(), "task_deadletter", task_id="S4", cause="task")


def bury_without_a_cause(world: World, conn: Connection, machine: FakeNode) -> None:
    events.add(conn, world.clock.wall(), "task_deadletter", task_id="S4")


def start_a_lease_twice(world: World, conn: Connection, machine: FakeNode) -> None:
    (task,) = machine.live()
    machine.finish("demo", "S1")
    machine.settle()
    machine.start(replace(task.order, sequence=task.order.sequence + 1))


def start_what_was_never_claimed(world: World, conn: Connection, machine: FakeNode) -> None:
    (task,) = machine.live()
    machine.start(replace(task.order, task_id="S4", folder="S4", lease="a:0badc0de"))


def kill_what_is_healthy(world: World, conn: Connection, machine: FakeNode) -> None:
    machine.kill(TaskRef("demo", "S1", lease_of(world)), 0.0)
    machine.settle()


@pytest.mark.parametrize(
    ("sabotage", "told"),
    [
        (lose_a_task, "there are 3 tasks, and there were 4"),
        (change_a_status_without_event, "the row says deadletter"),
        (tell_an_end_twice, "task_failed while it is failed"),
        (complete_what_runs, "completed, but a:[0-9a-f]+ is None"),
        (give_up_what_runs, "attempt_refunded, but a:[0-9a-f]+ lives"),
        (use_a_lease_twice, "S4 with lease|holds 2 tasks|used twice"),
        (leave_a_lock, r"file_locks are \[\('S4'"),
        (claim_before_the_parent, "S2: claimed before"),
        (claim_a_held_file, "S3 and S1 are held and modify one file|holds 2 tasks"),
        (hold_more_than_slots, "a holds 2 tasks"),
        (bury_too_early, "deadletter after 0 failures"),
        (bury_without_a_cause, "deadletter without a cause"),
        (start_a_lease_twice, "was started twice"),
        (start_what_was_never_claimed, "S4: a:0badc0de starts"),
        (kill_what_is_healthy, "was healthy and was killed"),
    ],
)
async def test_a_broken_rule_is_found(
    world: World, autojump_clock: MockClock, sabotage: Sabotage, told: str
) -> None:
    machine = world.node("a", slots=1, script=lambda _: Plan(seconds=5000.0))
    world.spec("S1", modifies=["src/x.py"], priority=1)
    world.spec("S2", depends_on=["S1"])
    world.spec("S3", modifies=["SRC"])
    world.spec("S4")
    invariants = Invariants(world)
    world.after_call = lambda: void(invariants.look())
    async with world.controller():
        await world.until(60, S1="running")
        await trio.sleep(1)
    world.after_call = lambda: None
    with get_db(world.db) as conn:
        conn.execute("BEGIN IMMEDIATE")
        sabotage(world, Connection(conn), machine)
        events.add(Connection(conn), world.clock.wall(), "sabotage")
        conn.execute("COMMIT")
    with pytest.raises(Violation, match=told):
        invariants.look()
    invariants.close()


async def test_an_end_with_something_left_undone_is_found(
    world: World, autojump_clock: MockClock
) -> None:
    world.node("a", slots=1, script=lambda _: Plan(seconds=5000.0))
    world.spec("S1")
    invariants = Invariants(world)
    world.after_call = lambda: void(invariants.look())
    async with world.controller():
        await world.until(60, S1="running")
    with pytest.raises(Violation, match="at the end S1 is running"):
        invariants.check_end()
    invariants.close()
