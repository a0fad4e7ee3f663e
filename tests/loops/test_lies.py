"""Nodes that say what is not so; what a simulation has found stays found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trio.testing import MockClock

from dispatch_controller.model import Observation, RunState
from tests.fakes import Plan
from tests.loops.world import World


async def test_a_report_of_another_attempt_under_the_same_lease_does_not_hide_the_end(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a", script=lambda _: Plan(seconds=100.0))
    machine.mute = True  # so that collections alone bring the news

    def wrong_attempt_once(told: Sequence[Observation]) -> Sequence[Observation]:
        if not any(seen.state is RunState.COMPLETED for seen in told):
            return told
        machine.distort = None
        return [replace(seen, attempt=97) for seen in told]

    machine.distort = wrong_attempt_once
    world.spec("S1")
    async with world.controller():
        await world.until(600, S1="completed")
    assert [trace.what for trace in machine.trace] == ["started", "ended"]
    assert "stale_report" in world.event_types("S1")
