"""every(): the only timed loop."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from dispatch_controller.runtime.clock import TrioClock
from dispatch_controller.runtime.every import Wake, every
from dispatch_controller.runtime.stats import LoopStats


class Recorder:
    def __init__(self, took: float = 0.0) -> None:
        self.steps: list[tuple[float, int]] = []
        self.took = took

    async def step(self, cycle: int) -> None:
        self.steps.append((trio.current_time(), cycle))
        await trio.sleep(self.took)


async def run_for(
    seconds: float, recorder: Recorder, wakes: tuple[float, ...] = (), interval: float = 10
) -> LoopStats:
    stats, wake, stop = LoopStats("test"), Wake(), trio.Event()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def loop() -> None:
            await every(
                recorder.step, stats, interval=interval, wake=wake, stop=stop, clock=TrioClock(0)
            )

        nursery.start_soon(loop)
        for at in wakes:
            await trio.sleep_until(start + at)
            wake.set()
        await trio.sleep_until(start + seconds)
        stop.set()
        wake.set()
    recorder.steps = [(at - start, cycle) for at, cycle in recorder.steps]
    return stats


async def test_steps_at_once_and_then_after_each_interval(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    stats = await run_for(35, recorder)
    assert recorder.steps == [(0, 1), (10, 2), (20, 3), (30, 4)]
    assert (stats.cycle, stats.steps, stats.interval) == (4, 4, 10)


async def test_the_interval_is_counted_from_the_end_of_a_step(autojump_clock: MockClock) -> None:
    recorder = Recorder(took=4)
    await run_for(30, recorder)
    assert recorder.steps == [(0, 1), (14, 2), (28, 3)]


async def test_a_wake_steps_early_and_leaves_the_cycle_and_its_schedule(
    autojump_clock: MockClock,
) -> None:
    recorder = Recorder()
    stats = await run_for(15, recorder, wakes=(3, 7))
    assert recorder.steps == [(0, 1), (3, 1), (7, 1), (10, 2)]
    assert stats.steps == 4


async def test_wakes_during_a_step_are_one_more_no_sooner_than_the_last_took(
    autojump_clock: MockClock,
) -> None:
    recorder = Recorder(took=2)
    await run_for(9, recorder, wakes=(0.5, 1.0, 1.5))
    assert recorder.steps == [(0, 1), (4, 1)]


async def test_a_stop_ends_a_sleep_at_once_and_lets_a_step_finish(
    autojump_clock: MockClock,
) -> None:
    recorder = Recorder(took=5)
    stats = await run_for(2, recorder)
    assert stats.steps == 1
    assert trio.current_time() == pytest.approx(5)


async def test_what_a_step_raises_is_raised(autojump_clock: MockClock) -> None:
    async def step(_: int) -> None:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        await every(
            step, LoopStats("t"), interval=1, wake=Wake(), stop=trio.Event(), clock=TrioClock(0)
        )
