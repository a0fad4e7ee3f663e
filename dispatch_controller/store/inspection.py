"""A look into a database that no controller has open: nothing beside or in it is changed."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dispatch_controller.core.plan import KnownTask
from dispatch_controller.core.times import parse_iso
from dispatch_controller.model import HELD, Task
from dispatch_controller.store import backup, file_locks, specs, tasks
from dispatch_controller.store.schema import missing_parts
from dispatch_controller.store.writer import Connection

_DAMAGE_SHOWN = 5
_WAL_VERSION = (b"\x02\x02", 18)
"""File format version of a database in WAL mode, and where in the header it is."""


class Unreadable(Exception):
    """SQLite could not read the file; the text is its reason."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found. `missing` not empty: the rest was not looked at."""

    missing: tuple[str, ...]
    """Tables and columns that the controller needs."""
    absent: frozenset[str] = frozenset()
    """Younger tables that are not there: what uses them is off."""
    damage: tuple[str, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()
    """Tasks by status."""
    known: tuple[KnownTask, ...] = ()
    held: tuple[Task, ...] = ()
    """Claimed and running tasks."""
    expired: tuple[str, ...] = ()
    """Pending tasks with a lease that is over."""
    lost_locks: tuple[str, ...] = ()
    """Tasks that hold file locks without being claimed or running (or without existing)."""
    nodes: tuple[tuple[str, str | None], ...] = ()
    """(name, ssh_host) of the table nodes."""
    events: int = 0

    @property
    def usable(self) -> bool:
        return not self.missing and not self.damage


def inspect(path: Path, now: float) -> Inspection:
    """Return what the database holds. Raises Unreadable."""
    try:
        with _look(path) as conn:
            missing, absent = missing_parts(conn)
            if missing:
                return Inspection(tuple(missing))
            return _inspect(conn, absent, now)
    except (sqlite3.Error, OSError, ValueError) as error:
        raise Unreadable(str(error)) from error


def _inspect(conn: sqlite3.Connection, absent: frozenset[str], now: float) -> Inspection:
    damage = [str(row[0]) for row in conn.execute(f"PRAGMA quick_check({_DAMAGE_SHOWN})")]
    if damage != ["ok"]:
        return Inspection((), absent, damage=tuple(damage))
    reader = Connection(conn)
    held = tasks.in_status(reader, *HELD)
    holders = {task.id for task in held}
    expired = conn.execute(
        "SELECT id FROM tasks WHERE status = 'pending' AND lease_owner IS NOT NULL"
        " AND lease_expires_at <= ? ORDER BY id",
        (now,),
    )
    locks = file_locks.all_locks(reader)
    return Inspection(
        missing=(),
        absent=absent,
        counts=tuple(tasks.counts(reader).items()),
        known=tuple(specs.known(reader)),
        held=tuple(held),
        expired=tuple(row[0] for row in expired),
        lost_locks=tuple(sorted({lock.task_id for lock in locks} - holders)),
        nodes=tuple(
            (row["name"], row["ssh_host"])
            for row in conn.execute("SELECT name, ssh_host FROM nodes ORDER BY name")
        ),
        events=conn.execute("SELECT count(*) FROM events").fetchone()[0],
    )


def restore_snapshot(snapshot: Path, path: Path) -> Path | None:
    """Put a snapshot in the database's place (backup.restore). Raises Unreadable."""
    try:
        return backup.restore(snapshot, path)
    except (sqlite3.Error, OSError) as error:
        raise Unreadable(str(error)) from error


def expired_leases(held: tuple[Task, ...], now: float) -> Counter[str]:
    """Return how many of the held tasks have a lease that is over, by status."""
    return Counter(
        task.status.value
        for task in held
        if task.lease_expires_at is not None and task.lease_expires_at <= now
    )


def local_times(path: Path) -> int:
    """Return how many tasks have a time without offset, which is read as this machine's."""
    columns = ("started_at", "completed_at", "heartbeat_at")
    with _look(path) as conn:
        rows = conn.execute(f"SELECT {', '.join(columns)} FROM tasks")
        return sum(any(_is_naive(row[name]) for name in columns) for row in rows)


def _is_naive(value: object) -> bool:
    if not isinstance(value, str) or parse_iso(value) is None:
        return False
    tail = value.strip()[10:]
    return not (tail.endswith("Z") or "+" in tail or "-" in tail)


@contextmanager
def _look(path: Path) -> Iterator[sqlite3.Connection]:
    """Open without writing anything, not even the files that go with the WAL.

    A database in WAL mode whose log is gone was closed by its last user: it is read as a file that
    does not change, since SQLite would else make its log anew, and leave that there.
    """
    closed = _is_wal(path) and not path.with_name(path.name + "-wal").exists()
    how = "immutable=1" if closed else "mode=ro"
    conn = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=30)
    try:
        conn.row_factory = sqlite3.Row
        yield conn
    finally:
        conn.close()


def _is_wal(path: Path) -> bool:
    version, offset = _WAL_VERSION
    with path.open("rb") as file:
        return file.read(offset + len(version))[offset:] == version
