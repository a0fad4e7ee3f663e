"""Registration: spec files become tasks. One at a time, whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import trio

from dispatch_controller.core import plan, registration
from dispatch_controller.core.plan import KnownTask, Plan
from dispatch_controller.loops.context import Context
from dispatch_controller.spec_files import Found, find, locate
from dispatch_controller.store import specs

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Read:
    found: Found
    located: dict[str, str]


class Registrar:
    """Reads spec files, plans what they change, and writes that (specs.md)."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = trio.Lock()
        self._reported: frozenset[tuple[str, ...]] = frozenset()

    async def register(self, paths: Sequence[Path], project: str | None = None) -> dict[str, Any]:
        """Register everything under the paths; return the counts, errors and warnings.

        The form is that of `register --json` (operations.md). One bad file stops no other.
        """
        async with self._lock:
            context = self._context
            rows = await context.store.read(specs.known)
            read = await context.run_sync(self._read, paths, project, rows)
            planned = await context.run_sync(self._plan, read, rows)
            changes = planned.inserts or planned.updates or planned.links or planned.hashes
            if changes or planned.events:
                await context.store.write(specs.write_plan, context.clock.wall(), planned)
            if changes:
                await context.run_sync(self._refresh, planned)
                context.wakes.scheduling.set()
            self._reported |= planned.standing
            context.knowledge.cycles = planned.cycles
            found = read.found
            return plan.report(
                planned,
                documents=found.documents,
                errors=found.errors,
                warnings=found.warnings,
            )

    def _read(self, paths: Sequence[Path], project: str | None, rows: Sequence[KnownTask]) -> _Read:
        optional = {
            name
            for name, entry in self._context.knowledge.projects.items()
            if entry.allow_empty_modifies
        }
        return _Read(
            find(paths, project, modifies_optional=optional),
            locate((row.spec_file for row in rows), base=self._context.settings.home),
        )

    def _plan(self, read: _Read, rows: Sequence[KnownTask]) -> Plan:
        return registration.plan(
            read.found.specs, rows, located=read.located, reported=self._reported
        )

    def _refresh(self, planned: Plan) -> None:
        self._context.catalog.refresh(
            columns.spec_file for columns in (*planned.inserts, *planned.updates)
        )
