"""The only timed loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from dispatch_controller.runtime.clock import Clock
from dispatch_controller.runtime.stats import LoopStats

Step = Callable[[int], Awaitable[None]]


class Wake:
    """Asks a loop to step early. Any number of calls before it does so are one."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()

    def clear(self) -> None:
        if self._event.is_set():
            self._event = trio.Event()


async def every(
    step: Step, stats: LoopStats, *, interval: float, wake: Wake, stop: trio.Event, clock: Clock
) -> None:
    """Call `step(cycle)` at once, then `interval` seconds after each timed step ended.

    A wake steps early, without advancing the cycle or moving the next timed step; wakes that come
    during a step are folded into one more, which starts no sooner than the last step took (so that
    a storm of wakes leaves half of the time to others). Returns soon after `stop` is set: a sleep
    ends at once, a step runs to its end. What a step raises is raised.
    """
    stats.interval = interval
    timed, due = True, trio.current_time()
    while not stop.is_set():
        wake.clear()
        stats.cycle += timed
        began = trio.current_time()
        await step(stats.cycle)
        ended = trio.current_time()
        stats.succeeded(clock.wall(), ended - began)
        if timed:
            due = ended + interval
        with trio.move_on_at(min(due, ended + (ended - began))):
            await stop.wait()
        with trio.move_on_at(due):
            await wake.wait()
        timed = trio.current_time() >= due
