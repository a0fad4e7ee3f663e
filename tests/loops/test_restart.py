"""What a new process finds again."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from dispatch_controller.store import history
from tests.fakes import FAILS, Plan
from tests.loops.world import World


async def test_after_a_restart_a_retry_still_prefers_another_node(
    world: World, autojump_clock: MockClock
) -> None:
    bad = world.node("a", priority=1, script=lambda _: FAILS)
    good = world.node("b", priority=2, script=lambda _: Plan(seconds=5))
    world.spec("S1")
    async with world.controller() as context:
        await trio.sleep(64)  # it failed after 60 s and is held back for 8 s or more
        assert "task_retry" in world.event_types("S1")
        found = await context.store.read(history.last_failures)
    assert found["S1"][0] == "a"
    async with world.controller() as context:
        for task_id, failure in (await context.store.read(history.last_failures)).items():
            context.knowledge.remember_failure(task_id, *failure)
        await world.until(300, S1="completed")
    assert len([t for t in bad.trace if t.what == "started"]) == 1
    assert len([t for t in good.trace if t.what == "started"]) == 1
