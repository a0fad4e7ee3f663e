"""Findings, incidents and what follows from them, on the mock clock."""

from __future__ import annotations

import json
import math

import trio
from trio.testing import MockClock

from dispatch_controller.loops.db_sync import DbSync
from dispatch_controller.loops.registrar import Registrar
from dispatch_controller.store.connection import get_db
from tests.fakes import FAILS, Plan
from tests.loops.world import World


def alerts(world: World) -> list[dict[str, str]]:
    folder = world.home / "guardian_alerts"
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def rows(world: World, sql: str) -> list[tuple[object, ...]]:
    with get_db(world.db) as conn:
        return [tuple(row) for row in conn.execute(sql)]


async def test_ten_lost_nodes_are_ten_incidents_whatever_they_hold(
    world: World, autojump_clock: MockClock
) -> None:
    machines = [
        world.node(f"n{n}", script=lambda _: Plan(seconds=math.inf), slots=3) for n in range(10)
    ]
    for n in range(30):
        world.spec(f"S{n:02}")
    async with world.controller():
        await trio.sleep(60)
        for machine in machines:
            machine.up = False
        await trio.sleep(900)
        assert sorted(world.findings.incidents) == [f"node:n{n}" for n in range(10)]
        told = [alert["type"] for alert in alerts(world)]
        assert sorted(told) == sorted(set(told))
        for machine in machines:
            machine.up = True
            machine.changed()
        await trio.sleep(900)
        assert not world.findings.incidents
    assert rows(world, "SELECT count(*) FROM guardian_events WHERE status = 'detected'") == [(0,)]


async def test_a_standing_incident_is_told_once_an_hour_at_most(
    world: World, autojump_clock: MockClock
) -> None:
    world.node("a").up = False
    world.spec("S1")
    async with world.controller():
        await trio.sleep(3 * 3600)
    assert 2 <= len([a for a in alerts(world) if a["type"] == "node:a"]) <= 3


async def test_a_finding_is_one_row_while_it_stands_also_over_a_restart(
    world: World, autojump_clock: MockClock
) -> None:
    world.node("a")
    world.spec("S1", depends_on=["no-such-task"])
    for _ in range(3):
        async with world.controller():
            await trio.sleep(700)
    found = rows(
        world, "SELECT issue_key, status FROM guardian_events WHERE check_type='check_dag_stuck'"
    )
    assert found == [("unknown_dependency:S1", "detected")]
    world.spec("no-such-task")
    async with world.controller():
        await trio.sleep(1500)
    found = rows(
        world, "SELECT issue_key, status FROM guardian_events WHERE check_type='check_dag_stuck'"
    )
    assert found == [("unknown_dependency:S1", "fixed")]


async def test_a_task_behind_a_dead_one_is_told_with_its_chain(
    world: World, autojump_clock: MockClock
) -> None:
    world.node("a", script=lambda _: FAILS)
    world.spec("S1")
    world.spec("S2", depends_on=["S1"])
    world.spec("S3", depends_on=["S2"])
    async with world.controller():
        await world.until(600, S1="deadletter")
        await trio.sleep(400)
        texts = [finding.text for finding in world.findings.standing()]
    assert any("S3 → S2 → S1" in text for text in texts)
    assert world.status()["S3"] == "pending"


async def test_a_task_that_waits_for_input_is_told_at_once(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a", script=lambda _: Plan(seconds=5000))
    world.spec("S1")
    async with world.controller():
        await world.until(60, S1="running")
        task = machine.tasks["demo", "S1"]
        task.plan = Plan(seconds=5000, waiting_input=True)
        machine.changed()
        await trio.sleep(5)
        keys = [finding.key for finding in world.findings.standing()]
    assert "waiting_input:S1" in keys


async def test_a_node_that_loses_tasks_is_quarantined_and_comes_back(
    world: World, autojump_clock: MockClock
) -> None:
    bad = world.node("a", slots=1, priority=1, script=lambda _: Plan(seconds=30, vanishes=True))
    world.node("b", slots=1, priority=2, script=lambda _: Plan(seconds=200))
    for n in range(12):
        world.spec(f"S{n:02}")
    async with world.controller():
        await trio.sleep(1800)
        quarantined = rows(
            world, "SELECT quarantined, score < 60 FROM node_reputation WHERE node='a'"
        )
        assert quarantined == [(1, 1)]
        started = len([t for t in bad.trace if t.what == "started"])
        bad.script = lambda _: Plan(seconds=30)
        await trio.sleep(600)
        assert len([t for t in bad.trace if t.what == "started"]) == started
        await world.settled(7200)
    assert rows(world, "SELECT quarantined FROM node_reputation WHERE node='a'") == [(0,)]
    assert set(world.status().values()) == {"completed"}


async def test_a_rate_limit_parks_the_executor_and_costs_no_attempt(
    world: World, autojump_clock: MockClock
) -> None:
    calls = 0

    def limited(_: object) -> Plan:
        nonlocal calls
        calls += 1
        if calls > 1:
            return Plan()
        failed = FAILS
        return Plan(state=failed.state, exit_code=1, reason="rate_limited", error="429")

    world.node("a", slots=1, script=limited)
    for n in range(3):
        world.spec(f"S{n}")
    async with world.controller():
        await trio.sleep(310)
        assert calls == 1
        assert list(world.findings.incidents) == ["executor:shell"]
        await world.settled(3 * 3600)
        await trio.sleep(310)
        assert not world.findings.incidents
    assert set(world.status().values()) == {"completed"}
    assert "attempt_refunded" in world.event_types("S0")
    assert [alert["type"] for alert in alerts(world)] == ["executor:shell"]


async def test_a_clock_that_is_off_is_told_and_harms_nothing(
    world: World, autojump_clock: MockClock
) -> None:
    world.node("a").skew = 7200.0
    world.spec("S1")
    async with world.controller():
        await world.until(300, S1="completed")
        await trio.sleep(700)
        keys = [finding.key for finding in world.findings.standing()]
    assert keys == ["clock_skew:a"]


async def test_more_retries_are_granted_for_what_was_not_its_own_fault(
    world: World, autojump_clock: MockClock
) -> None:
    calls = 0

    def killed(_: object) -> Plan:
        nonlocal calls
        calls += 1
        if calls > 3:
            return Plan()
        return Plan(state=FAILS.state, exit_code=137, reason="exit", error="killed")

    world.node("a", script=killed)
    world.spec("S1")
    async with world.controller():
        await world.until(3600, S1="completed")
    assert world.row("S1")["max_retries"] == 7


async def test_a_snapshot_is_taken_once_a_day_and_seven_are_kept(
    world: World, autojump_clock: MockClock
) -> None:
    context = world.build()
    sync = DbSync(context, Registrar(context))
    for hour in range(0, 10 * 24, 6):
        await trio.sleep_until(hour * 3600.0)
        await sync.backup()
        made = len(list((world.home / "snapshots").glob("*.db")))
        assert made == min(7, hour // 24 + 1)


async def test_a_node_that_comes_and_goes_is_told_once_an_hour_at_most(
    world: World, autojump_clock: MockClock
) -> None:
    machine = world.node("a")
    world.spec("S1")
    async with world.controller():
        for _ in range(8):
            machine.up = False
            await trio.sleep(600)
            assert "node:a" in world.findings.incidents
            machine.up = True
            machine.changed()
            await trio.sleep(300)
            assert "node:a" not in world.findings.incidents
    assert 1 <= len([a for a in alerts(world) if a["type"] == "node:a"]) <= 3
    opened = rows(world, "SELECT count(*) FROM guardian_events WHERE check_type = 'incident'")
    assert opened == [(8,)]
