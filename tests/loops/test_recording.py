"""What machines say is recorded one by one, whatever one of them says."""

from __future__ import annotations

from dataclasses import replace

import trio
from trio.testing import MockClock

from dispatch_controller.loops.recorder import Recorder
from dispatch_controller.model import Observation, RunState
from tests.fakes import Fault, Plan
from tests.loops.world import World


async def test_one_observation_that_no_column_holds_costs_only_itself(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a", script=lambda _: Plan(seconds=10_000))
    world.spec("S1")
    world.spec("S2")
    async with world.controller() as context:
        await world.until(60, S1="running", S2="running")
        seen = {task.order.task_id: machine.observe(task) for task in machine.live()}
        recorded = await Recorder(context).record(
            [_final(seen["S1"], files_changed=2**70), _final(seen["S2"], files_changed=1)]
        )
    assert [one.changed for one in recorded] == [False, True]
    assert world.status() == {"S1": "running", "S2": "completed"}


def _final(seen: Observation, files_changed: int) -> Observation:
    return replace(seen, state=RunState.COMPLETED, alive=False, files_changed=files_changed)


async def test_a_task_cancelled_while_its_start_is_unknown_never_runs_again(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a")
    machine.fail("start", Fault(delay=20.0, lost_before=True))
    world.spec("S1")
    async with world.controller():
        await world.until(60, S1="claimed")
        assert await world.operator.cancel("S1") is False
        await world.until(200, S1="deadletter")
        await trio.sleep(600)
    assert world.status() == {"S1": "deadletter"}
    assert not [t for t in machine.trace if t.what == "started"]


async def test_a_task_that_ends_as_it_is_cancelled_is_recorded_as_it_ended(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a", script=lambda _: Plan(seconds=100))
    world.spec("S1")
    async with world.controller():
        await world.until(60, S1="running")
        task = machine.tasks["demo", "S1"]
        task.ends_at = world.clock.wall()  # it has ended, and nobody was told yet
        assert await world.operator.cancel("S1") is False
        await trio.sleep(1)
    assert world.status() == {"S1": "completed"}
