"""Tasks go from spec to completed, on the mock clock."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from dispatch_controller.core.times import iso
from dispatch_controller.store.connection import get_db
from tests.fakes import FAILS, Fault, Plan
from tests.loops.world import World


async def test_a_spec_becomes_a_finished_task(world: World, autojump_clock: MockClock) -> None:
    world.node("a")
    world.spec("S1")
    async with world.controller():
        await world.until(120, S1="completed")
    assert world.event_types("S1") == [
        "task_registered",
        "task_claimed",
        "task_running",
        "task_completed",
    ]


async def test_a_child_starts_as_soon_as_its_parent_is_recorded(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a")
    world.spec("S1")
    world.spec("S2-next", depends_on=["S1"])
    async with world.controller():
        await world.until(200, S2_next="completed")
    times = {(t.folder, t.what): t.at for t in machine.trace}
    assert 0 <= times["S2-next", "started"] - times["S1", "ended"] < 0.1


async def test_tasks_that_share_a_file_do_not_overlap(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a", slots=8)
    for n in range(4):
        world.spec(f"S{n}", modifies=["src/shared.py"])
    async with world.controller():
        await world.settled(600)
    running = 0
    for trace in machine.trace:
        running += {"started": 1, "ended": -1}[trace.what]
        assert running <= 1


async def test_slots_are_not_exceeded_and_all_are_used(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a", slots=3)
    for n in range(12):
        world.spec(f"S{n:02}")
    most = 0
    async with world.controller():
        await trio.sleep(30)
        most = len(machine.live())
        await world.settled(600)
    assert most == 3
    assert set(world.status().values()) == {"completed"}


async def test_a_failed_task_is_retried_on_another_node(
    world: World, autojump_clock: MockClock
) -> None:
    bad = world.node("a", priority=1, script=lambda _: FAILS)
    good = world.node("b", priority=2)
    world.spec("S1")
    async with world.controller():
        await world.until(300, S1="completed")
    assert [t.what for t in bad.trace] == ["started", "ended"]
    assert [t.what for t in good.trace] == ["started", "ended"]


async def test_a_task_that_keeps_failing_ends_in_deadletter_with_its_cause(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a", script=lambda _: FAILS)
    world.spec("S1")
    async with world.controller():
        await world.until(600, S1="deadletter")
    assert [t.what for t in machine.trace] == ["started", "ended"] * 2
    last = world.events("S1")[-1]
    assert (last.event_type, last.details["cause"]) == ("task_deadletter", "task")


async def test_a_start_whose_answer_is_lost_is_adopted_not_doubled(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a")
    machine.fail("start", Fault(lost_after=True))
    world.spec("S1")
    async with world.controller():
        await world.until(300, S1="completed")
    assert [t.what for t in machine.trace] == ["started", "ended"]
    assert world.row("S1")["attempt"] == 1


async def test_a_start_still_in_the_pipe_is_voided_and_never_runs(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a")
    machine.fail("start", Fault(in_pipe=30.0))
    world.spec("S1")
    async with world.controller():
        await world.until(300, S1="completed")
        await trio.sleep(60)
    assert [t.what for t in machine.trace].count("started") == 1
    assert "refused:void" in [t.what for t in machine.trace]
    assert world.row("S1")["attempt"] == 2
    assert "attempt_refunded" in world.event_types("S1")


async def test_a_slow_node_delays_no_other(world: World, autojump_clock: MockClock) -> None:
    slow = world.node("a", slots=1, priority=1)
    slow.fail("start", Fault(delay=50.0))
    quick = world.node("b", slots=1)
    for n in range(4):
        world.spec(f"S{n}")
    async with world.controller():
        await trio.sleep(45)
        assert [t.what for t in quick.trace if t.what == "started"]
        await world.settled(900)


async def test_a_controller_killed_at_any_moment_runs_no_task_twice(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a", slots=2, script=lambda _: Plan(seconds=5))
    for n in range(8):
        world.spec(f"S{n}")
    for pause in (0.0, 0.1, 1.0, 2.5, 5.0, 7.5, 9.0):
        async with world.controller():
            await trio.sleep(pause)
    async with world.controller():
        await world.settled(600)
    started = [t.folder for t in machine.trace if t.what == "started"]
    assert sorted(started) == sorted(set(started))


async def test_an_operator_cancels_a_running_task(world: World, autojump_clock: MockClock) -> None:
    world.node("a", script=lambda _: Plan(seconds=10_000))
    world.spec("S1")
    async with world.controller():
        await world.until(60, S1="running")
        assert await world.operator.cancel("S1") is False
        await world.until(120, S1="deadletter")
        await world.operator.retry("S1")
        await world.until(60, S1="running")
    assert world.row("S1")["attempt"] == 1


async def test_another_program_s_claim_is_left_to_it_until_its_lease_has_run_out(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a")
    world.spec("S1", depends_on=["later"])
    async with world.controller():
        await trio.sleep(100)
        with get_db(world.db) as conn:  # as a command-line scheduler would
            conn.execute(
                "UPDATE tasks SET status = 'claimed', node = 'a', lease_owner = 'a:0badf00d',"
                " attempt = 1, started_at = ?, lease_expires_at = ?",
                (iso(world.clock.wall()), int(world.clock.wall()) + 300),
            )
        await trio.sleep(250)
        assert world.status() == {"S1": "claimed"}
        await trio.sleep(150)
        assert world.status() == {"S1": "pending"}
    assert [t.what for t in machine.trace] == ["voided"]


async def test_a_woken_reaper_asks_no_node_for_all_its_tasks(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a", slots=8, script=lambda _: FAILS)
    for n in range(8):
        world.spec(f"S{n}")
    async with world.controller() as context:
        await trio.sleep(59 * 5)
        stats = context.stats["reaper"]
        assert stats.steps > stats.cycle  # it was woken for the retries
        assert machine.calls.count("collect") <= stats.cycle + 1  # one more for stale processes
