"""The table `file_locks`: files that an exclusive task keeps to itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dispatch_controller.core.times import iso
from dispatch_controller.store.writer import Connection


@dataclass(frozen=True, slots=True)
class FileLock:
    file_path: str
    task_id: str
    project: str | None
    """The project of its task; None where no such task exists."""


def all_locks(conn: Connection) -> list[FileLock]:
    rows = conn.execute(
        "SELECT l.file_path, l.task_id, t.project FROM file_locks l"
        " LEFT JOIN tasks t ON t.id = l.task_id ORDER BY l.file_path, l.task_id"
    )
    return [FileLock(row["file_path"], row["task_id"], row["project"]) for row in rows]


def take(conn: Connection, now: float, locks: Sequence[tuple[str, str]]) -> None:
    """Record (file, task) pairs, in the transaction that claims the tasks."""
    conn.execute(
        "INSERT OR IGNORE INTO file_locks (file_path, task_id, locked_at)"
        " SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), ? FROM json_each(?)",
        (iso(now), json.dumps(locks)),
    )


def release(conn: Connection, task_id: str) -> None:
    conn.execute("DELETE FROM file_locks WHERE task_id = ?", (task_id,))


def release_stale(conn: Connection) -> list[str]:
    """Remove the locks of tasks that are not claimed or running; return the tasks' ids."""
    stale = (
        "FROM file_locks WHERE NOT EXISTS (SELECT 1 FROM tasks t"
        " WHERE t.id = file_locks.task_id AND t.status IN ('claimed', 'running'))"
    )
    ids = [row[0] for row in conn.execute(f"SELECT DISTINCT task_id {stale} ORDER BY task_id")]
    if ids:
        conn.execute(f"DELETE {stale}")
    return ids
