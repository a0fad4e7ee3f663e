"""Checks of dispatch.db, for a home on which no controller runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from dispatch_controller.core.plan import KnownTask
from dispatch_controller.doctor.finding import Finding, error, warning
from dispatch_controller.home import Home, lock_home
from dispatch_controller.store.checkpoint import TOO_LARGE, wal_size
from dispatch_controller.store.inspection import Inspection, Unreadable, inspect, restore_snapshot


class NotRestored(Exception):
    """A snapshot could not be put in the database's place; nothing was changed."""


def look(home: Home, now: float) -> tuple[Inspection | None, list[Finding]]:
    """Return what the database holds, None where it cannot be told, and what is wrong with it.

    No database is fine: it is made at the first start.
    """
    if _is_new(home):
        return None, []
    try:
        seen = inspect(home.database, now)
    except Unreadable as failed:
        text = f"SQLite cannot read it: {failed}"
        return None, [error("database", home.database, text, _restore(home))]
    return seen, list(_judge(home, seen))


def known_tasks(home: Home, seen: Inspection | None) -> Sequence[KnownTask] | None:
    """Return the tasks to plan registration against; None where they cannot be told."""
    if seen is not None:
        return seen.known if seen.usable else None
    return () if _is_new(home) else None


def _is_new(home: Home) -> bool:
    return not home.database.exists() or home.database.stat().st_size == 0


def _judge(home: Home, seen: Inspection) -> Iterator[Finding]:
    if seen.missing:
        text = f"lacks what the controller needs: {', '.join(seen.missing)}"
        fix = "its schema is never changed; restore a backup, or move the file away"
        yield error("database", home.database, text, fix)
    for line in seen.damage:
        yield error("database", home.database, f"is damaged: {line}", _restore(home))
    if seen.absent:
        text = f"lacks {', '.join(sorted(seen.absent))}: what would use them is off"
        fix = "nothing has to be done; a new database has them all"
        yield warning("database", home.database, text, fix)
    if wal_size(home.database) > TOO_LARGE:
        text = f"its write-ahead log holds {wal_size(home.database) // 2**20} MiB"
        fix = "end the program that reads the database without end (see `lsof dispatch.db`)"
        yield warning("database", home.database, text, fix)


def _restore(home: Home) -> str:
    command = f"dispatch-controller restore --home {shlex.quote(str(home.root))}"
    return f"put the newest snapshot in its place: {command}"


def snapshots(home: Home) -> list[Path]:
    """Return the snapshots, the newest first."""
    return sorted(home.snapshots.glob("dispatch-*.db"), reverse=True)


def restore(home: Home, snapshot: Path) -> Path | None:
    """Put a snapshot in the database's place; return where the old database was moved.

    Raises HomeInUse while a controller runs, and NotRestored, having changed nothing.
    """
    with lock_home(home):
        try:
            return restore_snapshot(snapshot, home.database)
        except Unreadable as failed:
            raise NotRestored(f"nothing was changed: {failed}") from failed
