"""What a node tells of a task without its id: older wrappers, and a status that is unreadable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trio.testing import MockClock

from dispatch_controller.model import Observation, RunState
from tests.fakes import Plan
from tests.loops.world import World


async def test_an_end_told_without_an_id_is_recorded(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a", script=lambda _: Plan(seconds=100.0))
    machine.mute = True  # so that collections alone bring the news
    machine.distort = lambda told: [replace(seen, task_id=None) for seen in told]
    world.spec("S1")
    async with world.controller():
        await world.until(600, S1="completed")
    assert "stale_report" not in world.event_types("S1")


async def test_a_live_task_with_an_unreadable_status_is_left_alone(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a", script=lambda _: Plan(seconds=900.0))
    machine.mute = True

    def unreadable(told: Sequence[Observation]) -> Sequence[Observation]:
        return [
            replace(seen, task_id=None, lease=None, attempt=None, state=RunState.UNKNOWN)
            if seen.alive
            else seen
            for seen in told
        ]

    machine.distort = unreadable
    world.spec("S1")
    async with world.controller():
        await world.until(1500, S1="completed")
    assert [trace.what for trace in machine.trace] == ["started", "ended"]
    assert world.event_types("S1").count("task_claimed") == 1
