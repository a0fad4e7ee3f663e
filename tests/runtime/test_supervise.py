"""supervise(): a service goes on, and only control flow ends it."""

from __future__ import annotations

import asyncio

import pytest
import trio
from trio.testing import MockClock

from dispatch_controller.runtime.stats import LoopStats
from dispatch_controller.runtime.supervise import RestartPolicy, RestartsExhausted, supervise

POLICY = RestartPolicy(limit=3, window=100, first_delay=1, max_delay=8)


async def test_a_service_that_raises_is_started_again_with_back_off(
    autojump_clock: MockClock,
) -> None:
    starts: list[float] = []
    stop = trio.Event()
    stats = LoopStats("x")

    async def service() -> None:
        starts.append(trio.current_time())
        if len(starts) == 4:
            await stop.wait()
            return
        raise ValueError("bad luck")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: supervise(service, stats, stop=stop, policy=POLICY))
        await trio.sleep(20)
        stop.set()
    assert starts == [0, 1, 3, 7]
    assert stats.restarts == 3
    assert stats.last_error == "ValueError: bad luck"


async def test_a_good_step_in_between_resets_the_back_off(autojump_clock: MockClock) -> None:
    starts: list[float] = []
    stop = trio.Event()
    stats = LoopStats("x")

    async def service() -> None:
        starts.append(trio.current_time())
        if len(starts) == 4:
            await stop.wait()
            return
        stats.succeeded(0.0, 0.0)
        raise ValueError

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: supervise(service, stats, stop=stop, policy=POLICY))
        await trio.sleep(20)
        stop.set()
    assert starts == [0, 1, 2, 3]


async def test_restarts_used_up_end_the_process(autojump_clock: MockClock) -> None:
    async def service() -> None:
        raise ValueError("always")

    with pytest.raises(RestartsExhausted, match="x failed 4 times"):
        await supervise(service, LoopStats("x"), stop=trio.Event(), policy=POLICY)


async def test_a_service_that_returns_has_failed(autojump_clock: MockClock) -> None:
    stats = LoopStats("x")

    async def service() -> None:
        await trio.lowlevel.checkpoint()

    with pytest.raises(RestartsExhausted):
        await supervise(service, stats, stop=trio.Event(), policy=POLICY)
    assert stats.last_error == "ServiceReturned: x returned"


async def test_a_stray_asyncio_cancellation_is_a_failure_like_any(
    autojump_clock: MockClock,
) -> None:
    stop = trio.Event()
    stats = LoopStats("x")

    async def service() -> None:
        if stats.restarts:
            await stop.wait()
            return
        raise asyncio.CancelledError

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: supervise(service, stats, stop=stop, policy=POLICY))
        await trio.sleep(5)
        stop.set()
    assert stats.restarts == 1


async def test_a_cancellation_mixed_with_a_failing_finaliser_cancels_and_is_recorded(
    autojump_clock: MockClock,
) -> None:
    stats = LoopStats("x")

    async def failing_finaliser() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while closing")

    async def service() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failing_finaliser)
            nursery.start_soon(trio.sleep_forever)

    with trio.move_on_after(1) as scope:
        await supervise(service, stats, stop=trio.Event(), policy=POLICY)
    assert scope.cancelled_caught
    assert stats.restarts == 1
    assert "while closing" in str(stats.last_error) or "ExceptionGroup" in str(stats.last_error)
