"""Snapshots of the database by SQLite's backup API, and the way back from one."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from dispatch_controller.store.connection import get_db

EVERY = 24 * 3600.0
KEPT = 7
PAGES = 2048
"""Pages copied at a time; writers have their turn in between."""
SEQUENCE_GAP = 1_000_000
"""Ids of events left out after a restore: nodes know later claims than the snapshot does, and
refuse what is not newer (docs/wrapper-protocol.md, `sequence`)."""

_PATTERN = "dispatch-*.db"
_FORM = "dispatch-%Y%m%dT%H%M%SZ.db"


def newest(folder: Path) -> float | None:
    """Return when the newest snapshot was made, Unix seconds, from its name; None without one."""
    made = [at for path in folder.glob(_PATTERN) if (at := _made_at(path)) is not None]
    return max(made, default=None)


def snapshot(path: Path, folder: Path, now: float) -> Path:
    """Copy the database into `folder` and remove all but the newest KEPT; return the copy.

    Raises sqlite3.Error and OSError; a copy that was not finished leaves nothing behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / datetime.fromtimestamp(now, UTC).strftime(_FORM)
    beside = target.with_suffix(".partial")
    beside.unlink(missing_ok=True)
    try:
        with get_db(path) as conn:
            copy = sqlite3.connect(beside)
            try:
                conn.backup(copy, pages=PAGES, sleep=0.01)
            finally:
                copy.close()
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    for old in sorted(folder.glob(_PATTERN))[:-KEPT]:
        old.unlink()
    return target


def restore(snapshot_file: Path, path: Path) -> Path | None:
    """Put a snapshot in the database's place; return where the old one was moved, if there was one.

    Only while no controller runs (the caller holds the home's lock). Raises sqlite3.Error where
    the snapshot is damaged, OSError, and then changes nothing.
    """
    fresh = path.with_suffix(".restoring")
    source = sqlite3.connect(f"{snapshot_file.absolute().as_uri()}?mode=ro", uri=True)
    try:
        if source.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError(f"{snapshot_file} is damaged (PRAGMA integrity_check)")
        target = sqlite3.connect(fresh)
        try:
            source.backup(target)
            target.execute(
                "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'events'", (SEQUENCE_GAP,)
            )
            target.commit()
        finally:
            target.close()
    finally:
        source.close()
    kept = None
    if path.exists():
        kept = path.with_name(f"{path.name}.before-restore")
        with get_db(path) as conn:  # what its write-ahead log holds goes into the kept copy
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        path.replace(kept)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    fresh.replace(path)
    return kept


def _made_at(path: Path) -> float | None:
    try:
        return datetime.strptime(path.name, _FORM).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
