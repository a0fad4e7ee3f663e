"""Wall time, injected; and the watch that notices when it jumps."""

from __future__ import annotations

import time
from typing import Protocol

import trio


class Clock(Protocol):
    def wall(self) -> float:
        """Return the time of day in Unix seconds."""


class SystemClock:
    """The machine's own clock: keeps going while a laptop sleeps, and may be stepped."""

    def wall(self) -> float:
        return time.time()  # noqa: TID251 - the one place


class TrioClock:
    """Wall time derived from Trio's clock: what tests on a mock clock use."""

    def __init__(self, epoch: float) -> None:
        self._epoch = epoch

    def wall(self) -> float:
        return self._epoch + trio.current_time()


class ClockWatch:
    """Tells jumps of the wall clock against the monotonic one (loops.md: more than 5 s)."""

    TOLERANCE = 5.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.last_jump = clock.wall()
        """Unix seconds: no verdict that rests on time may reach back beyond this. Starts at
        the start of the process."""
        self._offset = clock.wall() - trio.current_time()

    def check(self) -> float:
        """Return the jump since the last look, in seconds; 0.0 where there was none."""
        offset = self._clock.wall() - trio.current_time()
        jump = offset - self._offset
        self._offset = offset
        if abs(jump) <= self.TOLERANCE:
            return 0.0
        self.last_jump = self._clock.wall()
        return jump
