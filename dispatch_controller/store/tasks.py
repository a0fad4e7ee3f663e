"""Reading the table `tasks`. Changing its status is transitions.py's alone."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeVar

from dispatch_controller.core.times import parse_iso
from dispatch_controller.model import Task, TaskStatus
from dispatch_controller.store.writer import Connection

T = TypeVar("T")

NO_LIVE_LEASE = (
    "(lease_owner IS NULL OR lease_expires_at IS NULL OR CAST(lease_expires_at AS REAL) <= :now)"
)
"""A lease whose end is no number (a neighbour wrote it) never ends by itself: it has ended."""

PAGE = 500
"""Candidates in each page after the first."""

_PRIORITY = "CASE WHEN typeof(priority) IN ('integer', 'real') THEN priority ELSE 2 END"

_DEPENDENCIES_COMPLETED = """
    (depends_on IS NULL OR depends_on IN ('[]', '')
     OR (json_valid(depends_on) AND json_type(depends_on) = 'array' AND NOT EXISTS (
        SELECT 1 FROM json_each(tasks.depends_on) AS wanted
        WHERE NOT EXISTS (
            SELECT 1 FROM tasks AS parent
            WHERE parent.id = wanted.value AND parent.status = 'completed'))))"""


@lru_cache(maxsize=16384)
def strings(column: object) -> tuple[str, ...] | None:
    """Return a JSON list of strings; None where the column holds something else."""
    if column is None or column == "":
        return ()
    try:
        value = json.loads(column if isinstance(column, str | bytes) else str(column))
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return tuple(value)


_STATUSES: dict[object, TaskStatus] = {status.value: status for status in TaskStatus}


def status_from(column: object) -> TaskStatus:
    """Return a status; one that is none of ours counts as DEADLETTER: it is left alone."""
    return _STATUSES.get(column, TaskStatus.DEADLETTER)


def number(column: object) -> float | None:
    """Return a number; None where another program left text in its place."""
    return column if isinstance(column, int | float) else None


def whole(column: object, default: T) -> int | T:
    """Return an integer, or the default where the column holds none."""
    found = number(column)
    return default if found is None or math.isinf(found) else int(found)


def _text(column: object) -> str | None:
    return None if column is None else str(column)


_columns: Callable[[sqlite3.Row], tuple[object, ...]] = itemgetter(*Task.__slots__)


def task_from(row: sqlite3.Row) -> Task:
    """Return a row of `tasks` as a value; what other programs left odd is read leniently."""
    return _task(_columns(row))


@lru_cache(maxsize=8192)  # most rows are as they were when they were last read
def _task(columns: tuple[object, ...]) -> Task:
    row: dict[str, Any] = dict(zip(Task.__slots__, columns, strict=True))
    depends_on = row["depends_on"]
    modifies = row["modifies"]
    return Task(
        id=row["id"],
        project=row["project"],
        spec_file=row["spec_file"],
        spec_hash=row["spec_hash"],
        status=status_from(row["status"]),
        node=row["node"],
        pid=whole(row["pid"], None),
        attempt=whole(row["attempt"], 0),
        max_retries=whole(row["max_retries"], 2),
        started_at=parse_iso(row["started_at"]),
        completed_at=parse_iso(row["completed_at"]),
        heartbeat_at=parse_iso(row["heartbeat_at"]),
        error=_text(row["error"]),
        log_file=_text(row["log_file"]),
        duration_seconds=number(row["duration_seconds"]),
        depends_on=() if depends_on == "[]" else strings(depends_on),
        modifies=strings(modifies) or (),
        exclusive=bool(row["exclusive"]),
        priority=whole(row["priority"], 2),
        lease_owner=row["lease_owner"],
        lease_expires_at=number(row["lease_expires_at"]),
        visibility_timeout=whole(row["visibility_timeout"], 300) or 300,
        updated_at=number(row["updated_at"]),
        estimated_minutes=whole(row["estimated_minutes"], 30) or 30,
        artifact_patch=_text(row["artifact_patch"]),
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
    conn: Connection, now: float, first: int, wanted: Callable[[str], bool]
) -> Iterator[list[Task]]:
    """Yield, in pages, the pending tasks with no live lease and all dependencies completed.

    Ordered by priority, then id. Tasks whose spec_file is not `wanted` are passed over. Two
    statements at the most: the `first` tasks are found cheaply, and nearly always fill the slots;
    all others are one more query, read as far as the caller goes on.
    """
    query = (
        f"SELECT * FROM tasks WHERE status = 'pending' AND typeof(id) = 'text' AND {NO_LIVE_LEASE}"
        f" AND {_DEPENDENCIES_COMPLETED} ORDER BY {_PRIORITY}, id LIMIT :limit OFFSET :offset"
    )
    rows = conn.execute(query, {"now": now, "limit": first, "offset": 0}).fetchall()
    yield [task_from(row) for row in rows if wanted(row["spec_file"])]
    if len(rows) < first:
        return
    rest = conn.execute(query, {"now": now, "limit": -1, "offset": first})
    while rows := rest.fetchmany(PAGE):
        yield [task_from(row) for row in rows if wanted(row["spec_file"])]


def statuses(conn: Connection, ids: Sequence[str]) -> dict[str, TaskStatus]:
    """Return the states of those of the ids that name a task."""
    rows = conn.execute(
        "SELECT id, status FROM tasks WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(ids),),
    )
    return {row["id"]: status_from(row["status"]) for row in rows}


def pending(conn: Connection, limit: int) -> list[Task]:
    """Return pending tasks in the order of the pass."""
    rows = conn.execute(
        "SELECT * FROM tasks WHERE status = 'pending' ORDER BY coalesce(priority, 2), id LIMIT ?",
        (limit,),
    )
    return [task_from(row) for row in rows]


def dead_since(conn: Connection, since: float) -> list[Task]:
    """Return the tasks in deadletter that changed last after `since`, by id."""
    rows = conn.execute(
        "SELECT * FROM tasks WHERE status = 'deadletter' AND updated_at >= ? ORDER BY id", (since,)
    )
    return [task_from(row) for row in rows]


def open_graph(
    conn: Connection,
) -> tuple[dict[str, tuple[str, ...]], dict[str, TaskStatus]]:
    """Return dependencies and states of all tasks that are not completed."""
    rows = conn.execute(
        "SELECT id, status, depends_on FROM tasks WHERE status != 'completed' ORDER BY id"
    ).fetchall()
    parents = {
        row["id"]: strings(row["depends_on"]) or () for row in rows if row["depends_on"] != "[]"
    }
    return parents, {row["id"]: TaskStatus(row["status"]) for row in rows}


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
