"""Store.read and Store.write: how everything else reaches the database."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import trio

from dispatch_controller.runtime.threads import RunSync
from dispatch_controller.store.connection import Connect, get_db, is_busy
from dispatch_controller.store.writer import Connection, Writer, WriterStats

T = TypeVar("T")
P = ParamSpec("P")

READERS = 4
"""Reads at a time. They only wait for the disk and for each other's share of two cores."""


class Store:
    """The database, as functions of a connection run in worker threads."""

    def __init__(
        self,
        path: Path,
        run_sync: RunSync,
        absent: frozenset[str] = frozenset(),
        connect: Connect = get_db,
    ) -> None:
        self.path = path
        self.absent = absent
        """Younger tables that this database lacks (schema.YOUNGER)."""
        self._run_sync = run_sync
        self._readers = trio.CapacityLimiter(READERS)
        self._connect = connect
        self._writer = Writer(path, run_sync, connect)

    @property
    def stats(self) -> WriterStats:
        return self._writer.stats

    @property
    def depth(self) -> int:
        """Units queued for writing."""
        return self._writer.depth

    @property
    def next_commit(self) -> trio.Event:
        """Set by the next commit of this process. Take it before the read that may miss one."""
        return self._writer.next_commit

    async def read(
        self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return `fn(conn, *args)`, run on one snapshot. Raises sqlite3.Error, never a busy one."""

        def reading() -> T:
            return read_snapshot(self.path, lambda conn: fn(conn, *args, **kwargs), self._connect)

        return await self._run_sync(reading, limiter=self._readers)

    async def write(
        self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return `fn(conn, *args)` once it is committed (Writer.write)."""
        return await self._writer.write(lambda conn: fn(conn, *args, **kwargs))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what is queued until `drain`; an infrastructure task."""
        await self._writer.run(task_status=task_status)

    async def drain(self) -> None:
        """Take no more writes; return when those queued are written."""
        self._writer.drain()
        await self._writer.ended.wait()


_SURROUNDINGS = (
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB,
)  # fmt: skip


def unusable(error: Exception) -> str | None:
    """Return why the database cannot be used, where it is not the program's fault; else None."""
    if not isinstance(error, sqlite3.Error):
        return None
    code: int = getattr(error, "sqlite_errorcode", 0)  # the module's own errors have none
    return str(error) if code & 0xFF in _SURROUNDINGS else None


def read_snapshot(path: Path, fn: Callable[[Connection], T], connect: Connect = get_db) -> T:
    """Return `fn(conn)` on one snapshot of the database, waiting while it is busy."""
    while True:
        try:
            with connect(path) as conn:
                conn.execute("BEGIN")
                value = fn(Connection(conn))
                if isinstance(value, sqlite3.Cursor | sqlite3.Row):
                    raise TypeError("a read returns plain values, not rows or cursors")
                return value
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
        time.sleep(0.005)
