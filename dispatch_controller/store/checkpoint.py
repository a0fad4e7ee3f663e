"""The write-ahead log: how large it is, and folding it back into the database."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from dispatch_controller.store.connection import get_db

GROWN = 4 * 1024 * 1024
"""Bytes from which on the WAL is folded back."""
TOO_LARGE = 64 * 1024 * 1024
"""Bytes that only a reader that never ends lets it reach: an incident (database.md)."""


def wal_size(path: Path) -> int:
    """Return the bytes of the write-ahead log beside the database."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size
    except FileNotFoundError:
        return 0


def checkpoint(path: Path) -> None:
    """Fold back what can be without waiting for anybody. Raises sqlite3.Error."""
    _run(path, "PASSIVE")


def truncate_wal(path: Path) -> None:
    """Fold all back, at the end of the process; neighbours in the way are not waited for.

    Where that is not possible (a full disk), the next start does it.
    """
    with contextlib.suppress(sqlite3.OperationalError):
        _run(path, "TRUNCATE")


def _run(path: Path, mode: str) -> None:
    with get_db(path) as conn:
        conn.execute("PRAGMA busy_timeout=0")
        conn.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
