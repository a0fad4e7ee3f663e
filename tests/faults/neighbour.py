"""Another program that uses dispatch.db, as far as tests need one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


@contextmanager
def write_lock(database: Path) -> Iterator[sqlite3.Connection]:
    """Hold the write lock; `rollback` on what is yielded lets go of it early."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=30)) as conn:
        conn.execute("BEGIN IMMEDIATE")
        yield conn
        if conn.in_transaction:
            conn.execute("ROLLBACK")


def sound(database: Path) -> bool:
    """Whether SQLite finds nothing wrong with the file."""
    with closing(sqlite3.connect(database)) as conn:
        return bool(conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok")


def rows(database: Path) -> dict[str, dict[str, object]]:
    """Return all tasks by id, read past the controller."""
    with closing(sqlite3.connect(database)) as conn:
        conn.row_factory = sqlite3.Row
        return {row["id"]: dict(row) for row in conn.execute("SELECT * FROM tasks")}
