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
from dispatch_controller.spec_files import Found, Known, find, locate
from dispatch_controller.store import specs

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Read:
    found: Found
    located: dict[str, str]


_Source = tuple[tuple[Path, ...], str | None]


class Registrar:
    """Reads spec files, plans what they change, and writes that (specs.md)."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = trio.Lock()
        self._reported: frozenset[tuple[str, ...]] = frozenset()
        self._optional: frozenset[str] = frozenset()
        self._known: Known = {}
        self._quiet: dict[_Source, tuple[_Read, Sequence[KnownTask], Plan]] = {}
        """By source the last plan that had nothing to change or tell, and what it was made of."""

    async def register(self, paths: Sequence[Path], project: str | None = None) -> dict[str, Any]:
        """Register everything under the paths; return the counts, errors and warnings.

        The form is that of `register --json` (operations.md). One bad file stops no other.
        """
        async with self._lock:
            context = self._context
            rows = await context.store.read(specs.known)
            read = await context.run_sync(self._read, paths, project, rows)
            planned = await context.run_sync(self._plan, read, rows, (tuple(paths), project))
            if not planned.quiet:
                await context.store.write(specs.write_plan, context.clock.wall(), planned)
            if planned.changes:
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
        """Read what is new or changed; in quiet times this runs every 30 s over all files."""
        optional = frozenset(
            name
            for name, entry in self._context.knowledge.projects.items()
            if entry.allow_empty_modifies
        )
        if optional != self._optional:
            self._optional, self._known = optional, {}
        found = find(paths, project, modifies_optional=optional, known=self._known)
        real = {spec.path for spec in found.specs}
        files = (row.spec_file for row in rows)
        return _Read(found, locate(files, base=self._context.settings.home, found=real))

    def _plan(self, read: _Read, rows: Sequence[KnownTask], source: _Source) -> Plan:
        quiet = self._quiet.get(source)
        if quiet is not None and quiet[:2] == (read, rows):
            return quiet[2]
        planned = registration.plan(
            read.found.specs, rows, located=read.located, reported=self._reported
        )
        if planned.quiet:
            self._quiet[source] = (read, rows, planned)
        return planned

    def _refresh(self, planned: Plan) -> None:
        self._context.catalog.refresh(
            columns.spec_file for columns in (*planned.inserts, *planned.updates)
        )
