"""The short connection: every access to dispatch.db is one of these, closed after use."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

BUSY_TIMEOUT = 30_000
"""Milliseconds SQLite waits for a lock; fixed by the user (database.md)."""

Connect = Callable[[Path], AbstractContextManager[sqlite3.Connection]]
"""How a connection is come by: `get_db`, except for simulations."""

_BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_busy(error: BaseException) -> bool:
    """Whether somebody else's lock was in the way, so that trying again is right."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _BUSY_CODES


@contextmanager
def get_db(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database, and close it: what is not committed at the end is rolled back.

    The connection is in autocommit; who writes says BEGIN and COMMIT. Raises sqlite3.Error; a
    missing file is an error and is not created.
    """
    conn = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=0
    )
    try:
        conn.row_factory = sqlite3.Row
        conn.text_factory = _text
        _enter_wal(conn)
        conn.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT}")
        conn.execute("PRAGMA synchronous=FULL")
        if sys.platform == "darwin":
            conn.execute("PRAGMA fullfsync=1")
        yield conn
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        conn.close()


_text = partial(str, encoding="utf-8", errors="replace")
"""Reads a text: neighbours cut theirs off in the middle of a character."""


def _enter_wal(conn: sqlite3.Connection) -> None:
    mode = ask_until_free(conn, "PRAGMA journal_mode=WAL")
    if mode != "wal":  # not a neighbour's doing: the file system has no shared memory
        raise sqlite3.OperationalError(
            f"the database stays in journal mode {mode}: WAL needs a disk of this machine"
        )


def ask_until_free(conn: sqlite3.Connection, sql: str) -> object:
    """Return the first column of the first row, waiting for neighbours however long they take.

    SQLite itself does not wait at the first switch to WAL, and elsewhere ever more seldom: who
    writes without pause leaves gaps too short for that.
    """
    while True:
        try:
            row = conn.execute(sql).fetchone()
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            time.sleep(0.001)
        else:
            return None if row is None else row[0]
