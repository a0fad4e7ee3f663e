"""health_check: the controller looks at itself, and at which nodes it has lost."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import structlog
import trio

from dispatch_controller.core import liveness
from dispatch_controller.core.incidents import Finding, Severity
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.findings import Findings
from dispatch_controller.runtime.every import every
from dispatch_controller.runtime.lag import Lag
from dispatch_controller.store.checkpoint import TOO_LARGE, wal_size

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

    def __init__(self, context: Context, lag: Lag, findings: Findings) -> None:
        self._context = context
        self._lag = lag
        self._findings = findings

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
        """Look, and report what is found; a jump of the clock asks all nodes anew."""
        context = self._context
        jump = context.watch.check()
        if jump:
            log.warning("clock jumped", loop="health_check", cycle=cycle, seconds=round(jump, 1))
            context.wakes.probe_workers.set()
            context.knowledge.ask_all = True
            context.wakes.reaper.set()
        await self._findings.report("controller", _controller_findings(await self.look()))
        await self._findings.report("node_lost", self._lost_nodes())

    def _lost_nodes(self) -> list[Finding]:
        context = self._context
        knowledge, now = context.knowledge, context.clock.wall()
        trusted = max(context.started_at, context.watch.last_jump)
        found = []
        for node in sorted(knowledge.nodes):
            failed = node in knowledge.problems
            since = liveness.node_lost(knowledge.contacts.get(node), failed, trusted, now)
            if since is not None and knowledge.nodes[node].enabled:
                text = f"{node} is lost: {knowledge.problems[node]}"
                found.append(
                    Finding(
                        "node_lost", f"lost:{node}", Severity.CRITICAL, text, f"node:{node}", node
                    )
                )
        return found

    async def look(self) -> list[Problem]:
        """Return the problems there are now."""
        context = self._context
        found = problems(context, self._lag, context.clock.wall(), trio.current_time())
        wal = await context.run_sync(wal_size, context.store.path)
        if wal > TOO_LARGE:
            text = f"the write-ahead log has {wal // 2**20} MiB: another program reads without end"
            found.append(Problem("wal", text))
        free = (await context.run_sync(shutil.disk_usage, context.settings.home)).free
        if free < LEAST_FREE:
            found.append(Problem("disk", f"{free // 2**20} MiB free in {context.settings.home}"))
        return found


def _controller_findings(problems: list[Problem]) -> list[Finding]:
    """A database that cannot be written makes loops late: that is one incident, the database's."""
    database = any(problem.key == "database" for problem in problems)
    return [
        Finding(
            check="controller",
            key=problem.key,
            severity=Severity.CRITICAL,
            text=problem.text,
            root="database" if database or problem.key in ("database", "wal") else "controller",
        )
        for problem in problems
    ]
