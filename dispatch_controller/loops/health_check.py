"""health_check: the controller looks at itself, and at which nodes it has lost."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import structlog
import trio

from dispatch_controller.loops.context import Context
from dispatch_controller.runtime.every import every
from dispatch_controller.runtime.lag import Lag

log = structlog.get_logger(__name__)

LATE_INTERVALS = 3
"""A loop is late whose last good step is older than this many intervals (http.md, /health)."""
UNWRITABLE_AFTER = 60.0
LAG_LIMIT = 5.0
LEAST_FREE = 100 * 1024 * 1024
"""Bytes free in the home below which the controller is not healthy."""


@dataclass(frozen=True, slots=True)
class Problem:
    key: str
    text: str


def problems(context: Context, lag: Lag, now: float, monotonic: float) -> list[Problem]:
    """Return what is wrong with the controller itself; nothing where all is well."""
    found = []
    for name, stats in sorted(context.stats.items()):
        if not stats.interval:
            continue
        age = now - max(stats.last_ok or 0.0, context.started_at, context.watch.last_jump)
        if age > LATE_INTERVALS * stats.interval:
            error = f"; last error: {stats.last_error}" if stats.last_error else ""
            found.append(
                Problem(f"loop:{name}", f"{name} has had no good step for {age:.0f} s{error}")
            )
    blocked = context.store.stats.blocked_since
    if blocked is not None and monotonic - blocked > UNWRITABLE_AFTER:
        error = context.store.stats.last_error or "another program holds its write lock"
        found.append(Problem("database", f"not written for {monotonic - blocked:.0f} s: {error}"))
    if lag.worst > LAG_LIMIT:
        found.append(Problem("lag", f"the event loop was {lag.worst:.1f} s late"))
    return found


class HealthCheck:
    """The health_check loop (loops.md)."""

    def __init__(self, context: Context, lag: Lag) -> None:
        self._context = context
        self._lag = lag
        self.problems: list[Problem] = []
        """As of the last step; /health asks anew."""

    async def run(self) -> None:
        context = self._context
        await every(
            self.step,
            context.stats["health_check"],
            interval=context.settings.loops.health_check.interval,
            wake=context.wakes.health_check,
            stop=context.stop,
            clock=context.clock,
        )

    async def step(self, cycle: int) -> None:
        """Look, and say what is new and what is over."""
        context = self._context
        jump = context.watch.check()
        if jump:
            log.warning("clock jumped", loop="health_check", cycle=cycle, seconds=round(jump, 1))
            context.wakes.probe_workers.set()
            context.wakes.reaper.set()
        before = {problem.key for problem in self.problems}
        self.problems = await self.look()
        for problem in self.problems:
            if problem.key not in before:
                log.warning("unhealthy", loop="health_check", problem=problem.text)
        for key in sorted(before - {problem.key for problem in self.problems}):
            log.info("healthy again", loop="health_check", problem=key)

    async def look(self) -> list[Problem]:
        """Return the problems there are now."""
        context = self._context
        found = problems(context, self._lag, context.clock.wall(), trio.current_time())
        free = (await context.run_sync(shutil.disk_usage, context.settings.home)).free
        if free < LEAST_FREE:
            found.append(Problem("disk", f"{free // 2**20} MiB free in {context.settings.home}"))
        return found
