"""What the checks find, kept while it stands; incidents and alerts follow from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import structlog
import trio

from dispatch_controller.core.incidents import REMIND_AFTER, Finding, Incident, follow
from dispatch_controller.loops.alerts import Alerts
from dispatch_controller.loops.context import Context
from dispatch_controller.store import findings
from dispatch_controller.store.writer import Connection

log = structlog.get_logger(__name__)


WRITE_WITHIN = 5.0
"""Seconds a check waits for its rows to be written; a database that cannot be written is itself
a finding, and must not keep the checks from looking on."""


class Findings:
    """Each check reports all that it finds each time it looks; what is missing then is over."""

    def __init__(self, context: Context, alerts: Alerts) -> None:
        self._context = context
        self._alerts = alerts
        self._standing: dict[tuple[str, str], Finding] = {}
        self.incidents: dict[str, Incident] = {}
        """Open incidents by root cause."""
        self._last_told: dict[str, float] = {}
        """When the last alert about a root went out whose incident has closed."""
        self._written: dict[tuple[str, str], Finding] = {}
        self._written_incidents: dict[str, Incident] = {}
        self._kept = "guardian_events" not in context.store.absent

    async def load(self) -> None:
        """Take over what stood when the last process ended."""
        if not self._kept:
            return

        def read(conn: Connection) -> tuple[list[Finding], list[Incident]]:
            return findings.standing(conn), findings.open_incidents(conn)

        found, incidents = await self._context.store.read(read)
        self._standing = {(one.check, one.key): one for one in found}
        self.incidents = {incident.root: incident for incident in incidents}
        self._written, self._written_incidents = dict(self._standing), dict(self.incidents)

    def standing(self) -> list[Finding]:
        """Return all findings that stand now, gravest first."""
        return sorted(self._standing.values(), key=lambda one: (-one.severity, one.check, one.key))

    async def report(self, check: str, found: Sequence[Finding]) -> None:
        """Take all that `check` finds now: what is new becomes a row, what is gone closes."""
        now_found = {(check, one.key): one for one in found}
        new = [one for key, one in now_found.items() if key not in self._standing]
        others = {key: one for key, one in self._standing.items() if key[0] != check}
        self._standing = {**others, **now_found}
        now = self._context.clock.wall()
        change = follow(self.incidents, self._standing.values(), new, now)
        self.incidents = dict(change.incidents)
        for one in new:
            log.warning("finding", check=check, key=one.key, node=one.node, text=one.text)
        for incident in (*self._not_told_lately(change.opened, now), *change.reminded):
            await self._alerts.send(incident, now)
        for incident in change.closed:
            self._last_told[incident.root] = incident.told_at
            log.info("incident over", root=incident.root, findings=incident.count)
        if self._kept:
            await self._write(now)

    def _not_told_lately(self, opened: Sequence[Incident], now: float) -> list[Incident]:
        """What comes and goes is told once an hour too, like what stands."""
        fresh = []
        for incident in opened:
            told_at = self._last_told.pop(incident.root, -math.inf)
            if now - told_at < REMIND_AFTER:
                self.incidents[incident.root] = replace(incident, told_at=told_at)
            else:
                fresh.append(incident)
        return fresh

    async def _write(self, now: float) -> None:
        """Bring the table in line with what stands; what fails now is written the next time."""
        standing, incidents = dict(self._standing), dict(self.incidents)
        new = [one for key, one in standing.items() if key not in self._written]
        gone = [one for key, one in self._written.items() if key not in standing]
        before = self._written_incidents
        opened = [one for root, one in incidents.items() if root not in before]
        changed = [one for root, one in incidents.items() if before.get(root, one) != one]
        closed = [one for root, one in before.items() if root not in incidents]
        if not (new or gone or opened or changed or closed):
            return

        def write(conn: Connection) -> None:
            findings.write(conn, now, new, gone)
            findings.write_incidents(conn, now, opened, changed, closed)

        with trio.move_on_after(WRITE_WITHIN):
            await self._context.store.write(write)
            self._written, self._written_incidents = standing, incidents
