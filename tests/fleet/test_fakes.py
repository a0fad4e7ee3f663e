"""The fake fleet: its faults and its time. What it shares with the real ways is in the
conformance suite."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.model import (
    Adopted,
    ExecutorCommand,
    Observation,
    Refused,
    RunState,
    Started,
    StartOrder,
    TaskRef,
    Unknown,
    Voided,
)
from dispatch_controller.runtime.clock import TrioClock
from tests.fakes import (
    HANGS,
    LOST_AFTER,
    LOST_BEFORE,
    VANISHES,
    FakeNode,
    FakeTransport,
    Fault,
    Plan,
)


def an_order(folder: str = "T1", lease: str = "n:00000001", sequence: int = 1) -> StartOrder:
    return StartOrder(
        project="p",
        task_id=folder,
        folder=folder,
        lease=lease,
        attempt=sequence,
        sequence=sequence,
        spec="# do it",
        context="",
        timeout=7200,
        executor=ExecutorCommand("shell", ("sh", "-c", "{script}")),
        gates=("exit",),
        verify=None,
        modifies=("a.txt",),
    )


REF = TaskRef("p", "T1", "n:00000001")


def a_node(plan: Plan | None = None) -> tuple[FakeNode, FakeTransport, list[Observation]]:
    told: list[Observation] = []

    def report(news: Sequence[Observation]) -> None:
        told.extend(news)

    clock = TrioClock(1_700_000_000.0)
    node = FakeNode("n", clock, lambda order: plan or Plan())
    return node, FakeTransport(node, report, clock), told


async def test_start_lost_before_it_arrived_leaves_nothing(autojump_clock: object) -> None:
    node, transport, _ = a_node()
    node.fail("start", LOST_BEFORE)
    assert isinstance(await transport.start(an_order()), Unknown)
    assert isinstance(await transport.void(REF), Voided)
    assert isinstance(await transport.start(an_order()), Refused)


async def test_start_whose_answer_was_lost_is_adopted(autojump_clock: object) -> None:
    node, transport, _ = a_node()
    node.fail("start", LOST_AFTER)
    assert isinstance(await transport.start(an_order()), Unknown)
    assert isinstance(await transport.void(REF), Adopted)


async def test_start_in_a_pipe_is_stopped_by_void_and_only_by_void(autojump_clock: object) -> None:
    node, transport, _ = a_node()
    node.fail("start", Fault(in_pipe=20), Fault(in_pipe=20))
    await transport.start(an_order())
    await transport.void(REF)
    await transport.start(an_order("T2", "n:00000002"))
    await trio.sleep(30)
    assert [task.order.folder for task in node.live()] == ["T2"]


async def test_reports_end_as_it_happens(autojump_clock: object) -> None:
    _, transport, told = a_node(Plan(seconds=100))
    async with trio.open_nursery() as nursery:
        await nursery.start(transport.run)
        await transport.start(an_order())
        await trio.sleep(99)
        assert [seen.state for seen in told] == [RunState.RUNNING]
        await trio.sleep(2)
        assert told[-1].state is RunState.COMPLETED
        nursery.cancel_scope.cancel()


async def test_a_node_that_was_cut_off_tells_afterwards(autojump_clock: object) -> None:
    node, transport, _ = a_node(Plan(seconds=10))
    async with trio.open_nursery() as nursery:
        await nursery.start(transport.run)
        await transport.start(an_order())
        node.up = False
        await trio.sleep(20)
        with pytest.raises(TransportLost):
            await transport.collect()
        node.up = True
        (seen,) = (await transport.collect()).tasks
        assert seen.state is RunState.COMPLETED
        nursery.cancel_scope.cancel()


async def test_vanished_process_is_running_and_not_alive(autojump_clock: object) -> None:
    _, transport, _ = a_node(VANISHES)
    await transport.start(an_order())
    await trio.sleep(61)
    (seen,) = (await transport.collect()).tasks
    assert (seen.state, seen.alive) == (RunState.RUNNING, False)


async def test_time_limit_ends_what_hangs(autojump_clock: object) -> None:
    _, transport, _ = a_node(HANGS)
    assert isinstance(await transport.start(an_order()), Started)
    await trio.sleep(7201)
    (seen,) = (await transport.collect()).tasks
    assert (seen.state, seen.exit_code) == (RunState.TIMEOUT, 124)
