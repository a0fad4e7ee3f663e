"""Reading the table `tasks`. Changing its status is transitions.py's alone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dispatch_controller.core.times import parse_iso
from dispatch_controller.model import Task, TaskStatus
from dispatch_controller.store.writer import Connection

NO_LIVE_LEASE = "(lease_owner IS NULL OR lease_expires_at IS NULL OR lease_expires_at <= :now)"

_DEPENDENCIES_COMPLETED = """
    (depends_on IS NULL OR depends_on IN ('[]', '')
     OR (json_valid(depends_on) AND json_type(depends_on) = 'array' AND NOT EXISTS (
        SELECT 1 FROM json_each(tasks.depends_on) AS wanted
        WHERE NOT EXISTS (
            SELECT 1 FROM tasks AS parent
            WHERE parent.id = wanted.value AND parent.status = 'completed'))))"""


def strings(column: object) -> tuple[str, ...] | None:
    """Return a JSON list of strings; None where the column holds something else."""
    if column is None or column == "":
        return ()
    try:
        value = json.loads(str(column))
    except ValueError:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return tuple(value)


def task_from(row: sqlite3.Row) -> Task:
    """Return a row of `tasks` as a value; what old programs left odd is read leniently."""
    depends_on = row["depends_on"]
    modifies = row["modifies"]
    return Task(
        id=row["id"],
        project=row["project"],
        spec_file=row["spec_file"],
        spec_hash=row["spec_hash"],
        status=TaskStatus(row["status"]),
        node=row["node"],
        pid=row["pid"],
        attempt=row["attempt"] or 0,
        max_retries=2 if row["max_retries"] is None else row["max_retries"],
        started_at=parse_iso(row["started_at"]),
        completed_at=parse_iso(row["completed_at"]),
        heartbeat_at=parse_iso(row["heartbeat_at"]),
        error=row["error"],
        log_file=row["log_file"],
        duration_seconds=row["duration_seconds"],
        depends_on=() if depends_on == "[]" else strings(depends_on),
        modifies=strings(modifies) or (),
        exclusive=bool(row["exclusive"]),
        priority=2 if row["priority"] is None else row["priority"],
        lease_owner=row["lease_owner"],
        lease_expires_at=row["lease_expires_at"],
        visibility_timeout=row["visibility_timeout"] or 300,
        updated_at=row["updated_at"],
        estimated_minutes=row["estimated_minutes"] or 30,
    )


def get(conn: Connection, task_id: str) -> Task | None:
    row = conn.execute("SELECT * FROM tasks WHERE id = ?", (task_id,)).fetchone()
    return None if row is None else task_from(row)


def by_ids(conn: Connection, ids: Sequence[str]) -> dict[str, Task]:
    rows = conn.execute(
        "SELECT * FROM tasks WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(ids),)
    )
    return {row["id"]: task_from(row) for row in rows}


def in_status(conn: Connection, *statuses: TaskStatus) -> list[Task]:
    """Return the tasks in these states, ordered by id."""
    rows = conn.execute(
        "SELECT * FROM tasks WHERE status IN (SELECT value FROM json_each(?)) ORDER BY id",
        (json.dumps(statuses),),
    )
    return [task_from(row) for row in rows]


def candidates(
    conn: Connection,
    now: float,
    after: tuple[int, str] | None,
    limit: int,
    wanted: Callable[[str], bool],
) -> tuple[list[Task], tuple[int, str] | None]:
    """Return a page of pending tasks with no live lease and all dependencies completed.

    Ordered by priority, then id. `after` is where the page before ended; the second value is where
    this one did, None at the end. Tasks whose spec_file is not `wanted` are passed over.
    """
    page = "" if after is None else "AND (coalesce(priority, 2), id) > (:priority, :id)"
    priority, task_id = after or (0, "")
    rows = conn.execute(
        f"SELECT * FROM tasks WHERE status = 'pending' AND {NO_LIVE_LEASE} {page}"
        f" AND {_DEPENDENCIES_COMPLETED} ORDER BY coalesce(priority, 2), id LIMIT :limit",
        {"now": now, "priority": priority, "id": task_id, "limit": limit},
    ).fetchall()
    end = None
    if len(rows) == limit:
        last = task_from(rows[-1])
        end = (last.priority, last.id)
    return [task_from(row) for row in rows if wanted(row["spec_file"])], end


def statuses(conn: Connection, ids: Sequence[str]) -> dict[str, TaskStatus]:
    """Return the states of those of the ids that name a task."""
    rows = conn.execute(
        "SELECT id, status FROM tasks WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(ids),),
    )
    return {row["id"]: TaskStatus(row["status"]) for row in rows}


def counts(conn: Connection) -> dict[str, int]:
    """Return how many tasks are in each state; every state is named."""
    found = dict(conn.execute("SELECT status, count(*) FROM tasks GROUP BY status").fetchall())
    return {status.value: found.get(status.value, 0) for status in TaskStatus}


def siblings(conn: Connection, project: str, limit: int) -> list[tuple[str, str]]:
    """Return (id, status) of tasks of a project, those at work first."""
    rows = conn.execute(
        "SELECT id, status FROM tasks WHERE project = ? ORDER BY status IN ('completed',"
        " 'deadletter'), status = 'pending', priority, id LIMIT ?",
        (project, limit),
    )
    return [(row["id"], row["status"]) for row in rows]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which tasks a list shows; None shows all."""

    status: str | None = None
    project: str | None = None
    node: str | None = None
    q: str | None = None
    """Part of an id, of an error or of a spec's path."""


def page(
    conn: Connection, where: Filter, limit: int, offset: int
) -> tuple[list[dict[str, object]], int]:
    """Return (rows with every column, how many there are in all), ordered by id."""
    clauses, parameters = ["1"], {"limit": limit, "offset": offset, "q": where.q}
    for name in ("status", "project", "node"):
        value = getattr(where, name)
        if value is not None:
            clauses.append(f"{name} = :{name}")
            parameters[name] = value
    if where.q:
        clauses.append("(instr(id, :q) OR instr(error, :q) OR instr(spec_file, :q))")
    condition = " AND ".join(clauses)
    total = conn.execute(
        f"SELECT count(*) FROM tasks WHERE {condition}",
        parameters,
    ).fetchone()[0]
    rows = conn.execute(
        f"SELECT * FROM tasks WHERE {condition} ORDER BY id LIMIT :limit OFFSET :offset",
        parameters,
    )
    return [dict(row) for row in rows], total


def row(conn: Connection, task_id: str) -> dict[str, object] | None:
    """Return every column of one task."""
    found = conn.execute("SELECT * FROM tasks WHERE id = ?", (task_id,)).fetchone()
    return None if found is None else dict(found)


def spec_files(conn: Connection) -> list[str]:
    """Return the spec files of tasks that may still be started."""
    rows = conn.execute(
        "SELECT DISTINCT spec_file FROM tasks WHERE status IN ('pending', 'claimed', 'running',"
        " 'failed') ORDER BY spec_file"
    )
    return [row["spec_file"] for row in rows]


def projects(conn: Connection) -> list[dict[str, object]]:
    """Return per project how many tasks are in each state."""
    rows = conn.execute(
        "SELECT project, status, count(*) AS n FROM tasks GROUP BY project, status"
        " ORDER BY project, status"
    )
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row["project"], {})[row["status"]] = row["n"]
    return [{"project": name, "tasks": states} for name, states in found.items()]
