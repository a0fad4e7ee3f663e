"""Is it getting faster: what the events of the last two days say, hour by hour.

Events are read once, by id, and go into buckets of an hour; who asks first waits for a part of
them at the most.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from statistics import median

import trio

from dispatch_controller.core.times import parse_iso
from dispatch_controller.store import measures, pages
from dispatch_controller.store.measures import Measured
from dispatch_controller.store.store import Store
from dispatch_controller.store.writer import Connection

HOUR = 3600
DAY = 24
"""Hours."""
PATIENCE = 0.1
"""Seconds after which reading goes on with the next question."""
SAMPLES = 1000
"""Latencies kept of one hour: more do not move its median."""
MOST_WAITING = 200_000


@dataclass(frozen=True, slots=True)
class Day:
    """24 hours, oldest first; the last one is the hour that is not over."""

    completed: tuple[int, ...]
    failed: tuple[int, ...]
    latencies: tuple[float | None, ...]
    """Median seconds from when a task could run to when it ran, where any began."""
    median_latency: float | None
    """Of the whole day."""


@dataclass(frozen=True, slots=True)
class Trend:
    first_hour: int
    """Unix hour that `today` begins with."""
    today: Day
    before: Day
    whole: bool
    """Whether all events of the two days have been read."""


class Trends:
    """Reads the events on, as far as somebody asks."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = trio.Lock()
        self._last_id: int | None = None
        self._ended: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._latencies: defaultdict[int, list[float]] = defaultdict(list)
        self._runnable: dict[str, float] = {}

    async def look(self, now: float) -> Trend:
        """Return the trend as of `now` (Unix seconds)."""
        async with self._lock:
            whole = await self._read_on(now)
        hour = int(now // HOUR)
        for old in [one for one in self._ended if one <= hour - 2 * DAY]:
            del self._ended[old]
        for old in [one for one in self._latencies if one <= hour - 2 * DAY]:
            del self._latencies[old]
        first = hour - DAY + 1
        return Trend(first, self._day(first), self._day(first - DAY), whole)

    async def _read_on(self, now: float) -> bool:
        if self._last_id is None:
            since = (now // HOUR - 2 * DAY + 1) * HOUR
            self._last_id = await self._store.read(measures.first_id, since)
        until = trio.current_time() + PATIENCE
        while True:
            measured, ended = await self._store.read(_read, self._last_id)
            self._last_id = measured.last_id
            for name, kind, number in ended:
                at = parse_iso(f"{name}:00:00+00:00")
                if at is not None:
                    self._ended[int(at // HOUR)][kind] += number
            self._time(measured)
            if not measured.more:
                return True
            if trio.current_time() >= until:
                return False

    def _time(self, measured: Measured) -> None:
        for task, at in measured.runnable.items():
            if task not in measured.started or at <= measured.started[task]:
                self._runnable[task] = at
        for task, at in measured.started.items():
            moments = (self._runnable.pop(task, None), measured.parents_done.get(task))
            known = [moment for moment in moments if moment is not None and moment <= at]
            hour = self._latencies[int(at // HOUR)]
            if known and len(hour) < SAMPLES:
                hour.append(at - max(known))
        while len(self._runnable) > MOST_WAITING:
            del self._runnable[next(iter(self._runnable))]

    def _day(self, first: int) -> Day:
        hours = range(first, first + DAY)
        none: list[float] = []
        latencies = [self._latencies.get(hour, none) for hour in hours]
        everything = [one for hour in latencies for one in hour]
        ended = [self._ended.get(hour, Counter[str]()) for hour in hours]
        return Day(
            completed=tuple(hour["task_completed"] for hour in ended),
            failed=tuple(hour["task_failed"] for hour in ended),
            latencies=tuple(median(hour) if hour else None for hour in latencies),
            median_latency=median(everything) if everything else None,
        )


def _read(conn: Connection, after: int) -> tuple[Measured, list[tuple[str, str, int]]]:
    measured = measures.measure(conn, after)
    return measured, pages.endings_by_hour(conn, after, measured.last_id)
