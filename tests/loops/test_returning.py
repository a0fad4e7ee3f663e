"""Starts that come to nothing: the task waits longer each time, and is neither lost nor burnt."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from dispatch_controller.core.retry import MOST_STARTS
from dispatch_controller.loops.conditions import reasons
from dispatch_controller.store.connection import get_db
from tests.fakes import LOST_BEFORE, VANISHES, Fault, Plan
from tests.loops.world import World


async def test_a_node_that_refuses_every_start_for_half_an_hour_buries_no_task(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a", slots=4)
    for n in range(4):
        world.spec(f"S{n}")
    machine.choose_fault = lambda call: Fault(refuse="wrapper_error") if call == "start" else None
    async with world.controller():
        await trio.sleep(1800)
        assert set(world.status().values()) == {"pending"}
        assert machine.calls.count("start") <= 4 * 7
        machine.choose_fault = None
        await world.settled(2000)
    assert set(world.status().values()) == {"completed"}


async def test_starts_that_keep_getting_lost_end_after_the_fifteenth(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a")
    world.spec("S1")
    machine.choose_fault = lambda call: LOST_BEFORE if call == "start" else None
    async with world.controller():
        await world.until(60, S1="pending")
        with get_db(world.db) as conn:
            conn.execute("UPDATE tasks SET attempt = ?", (MOST_STARTS - 1,))
        await world.until(600, S1="deadletter")
    assert world.row("S1")["attempt"] == MOST_STARTS
    last = world.events("S1")[-1].details
    assert (last["cause"], last["why"]) == ("node", "started 15 times")


async def test_a_node_with_a_full_disk_is_left_alone_until_it_has_room(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a")
    machine.disk_free = machine.disk_total // 100
    machine.choose_fault = lambda call: Fault(refuse="disk_full") if call == "start" else None
    world.spec("S1")
    async with world.controller() as context:
        await trio.sleep(600)
        found = await reasons(context, ["S1"])
        assert found["S1"].text == "no free slot: a is out of room: its disk is 99% full"
        assert machine.calls.count("start") <= 1  # before its first probe
        machine.disk_free, machine.choose_fault = machine.disk_total // 2, None
        await world.until(300, S1="completed")


async def test_a_node_whose_executor_the_settings_do_not_know_gets_no_task_and_says_why(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a", executor="houseelf")
    world.spec("S1", executor="houseelf")
    async with world.controller() as context:
        await trio.sleep(300)
        found = await reasons(context, ["S1"])
    assert "no executor houseelf in the settings: add [executors.houseelf]" in found["S1"].text
    assert world.row("S1")["attempt"] == 0
    assert "start" not in machine.calls


@pytest.mark.parametrize(("cancelled", "end"), [(False, "completed"), (True, "deadletter")])
async def test_one_that_vanished_before_its_start_was_confirmed_is_not_claimed_for_ever(
    cancelled: bool, end: str, world: World, autojump_clock: MockClock
) -> None:
    """Older wrappers leave the status of such an attempt as it was: running."""
    plans = [VANISHES, Plan()]

    def cut_off_as_it_starts(_: object) -> Plan:
        machine.up = len(plans) < 2
        return plans.pop(0)

    machine = world.node("a", script=cut_off_as_it_starts)
    machine.mute = True
    world.spec("S1")
    async with world.controller():
        await world.until(60, S1="claimed")
        await trio.sleep(100)
        machine.up = True
        assert world.status() == {"S1": "claimed"}
        if cancelled:
            await world.operator.cancel("S1")
        await world.until(900, S1=end)
    assert len(plans) == int(cancelled)
