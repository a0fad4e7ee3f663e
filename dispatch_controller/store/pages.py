"""Reads for the dashboard: few columns and few rows, however large the tables are."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from dispatch_controller.core.times import parse_iso
from dispatch_controller.store.tasks import Filter, number, status_from, strings, whole
from dispatch_controller.store.writer import Connection

_COLUMNS = (
    "id, project, status, node, attempt, max_retries, priority, substr(error, 1, 400) AS error,"
    " started_at, completed_at, duration_seconds, estimated_minutes, updated_at"
)
RECENT_EVENTS = 50_000
"""Newest events looked through for causes: the table has no index by task."""


@dataclass(frozen=True, slots=True)
class TaskLine:
    """A task as tables show it. Times in Unix seconds."""

    id: str
    project: str
    status: str
    node: str | None
    attempt: int
    max_retries: int
    priority: int
    error: str | None
    started_at: float | None
    completed_at: float | None
    duration_seconds: float | None
    estimated_minutes: int
    updated_at: float | None


@dataclass(frozen=True, slots=True)
class GraphTask:
    """A task as a drawing needs it."""

    id: str
    status: str
    depends_on: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reputation:
    score: int
    total: int
    failed: int


def task_lines(
    conn: Connection, where: Filter, limit: int, offset: int, *, changed_first: bool = False
) -> tuple[list[TaskLine], int]:
    """Return a page of tasks, by id or those that changed last first, and how many there are."""
    clauses, parameters = ["1"], {"limit": limit, "offset": offset, "q": where.q}
    for name in ("status", "project", "node"):
        value = getattr(where, name)
        if value is not None:
            clauses.append(f"{name} = :{name}")
            parameters[name] = value
    if where.q:
        clauses.append("(instr(id, :q) OR instr(error, :q) OR instr(spec_file, :q))")
    condition = " AND ".join(clauses)
    order = "updated_at DESC, id" if changed_first else "id"
    total = conn.execute(f"SELECT count(*) FROM tasks WHERE {condition}", parameters).fetchone()[0]
    # Sorting narrow rows first keeps the sort in memory small; the page's rows are read after.
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM tasks WHERE rowid IN (SELECT rowid FROM tasks WHERE {condition}"
        f" ORDER BY {order} LIMIT :limit OFFSET :offset) ORDER BY {order}",
        parameters,
    )
    return [_line(row) for row in rows], int(total)


def at_work(conn: Connection, limit: int) -> list[TaskLine]:
    """Return claimed and running tasks, those that began last first."""
    return _lines(conn, "status IN ('claimed', 'running') ORDER BY started_at DESC, id", limit)


def failed_lately(conn: Connection, limit: int) -> list[TaskLine]:
    """Return failed tasks and those given up, those that changed last first."""
    return _lines(conn, "status IN ('failed', 'deadletter') ORDER BY updated_at DESC, id", limit)


def _lines(conn: Connection, condition: str, limit: int) -> list[TaskLine]:
    rows = conn.execute(f"SELECT {_COLUMNS} FROM tasks WHERE {condition} LIMIT ?", (limit,))
    return [_line(row) for row in rows]


def next_pending(conn: Connection, limit: int) -> list[str]:
    """Return ids of pending tasks in the order of the pass."""
    rows = conn.execute(
        "SELECT id FROM tasks WHERE status = 'pending' ORDER BY coalesce(priority, 2), id LIMIT ?",
        (limit,),
    )
    return [str(row["id"]) for row in rows]


def causes(conn: Connection, ids: Sequence[str]) -> dict[str, str]:
    """Return whose fault the last failure of each task was, as far as recent events tell."""
    rows = conn.execute(
        "SELECT task_id, json_extract(details, '$.cause') AS cause FROM events"
        " WHERE id > (SELECT coalesce(max(id), 0) FROM events) - ?"
        " AND event_type IN ('task_failed', 'task_deadletter', 'attempt_refunded')"
        " AND task_id IN (SELECT value FROM json_each(?)) AND json_valid(details) ORDER BY id",
        (RECENT_EVENTS, json.dumps(ids)),
    )
    return {row["task_id"]: str(row["cause"]) for row in rows if row["cause"]}


def graph(conn: Connection, project: str, limit: int) -> tuple[list[GraphTask], int]:
    """Return tasks of a project with their dependencies, and how many it has in all.

    Where there are more than `limit`: first those at work, then failed, pending, and completed
    ones, the last changed first. Returned by id.
    """
    total = conn.execute("SELECT count(*) FROM tasks WHERE project = ?", (project,)).fetchone()[0]
    rows = conn.execute(
        "SELECT id, status, depends_on FROM tasks WHERE project = ? ORDER BY"
        " CASE status WHEN 'claimed' THEN 0 WHEN 'running' THEN 0 WHEN 'failed' THEN 1"
        " WHEN 'deadletter' THEN 1 WHEN 'pending' THEN 2 ELSE 3 END, updated_at DESC, id LIMIT ?",
        (project, limit),
    )
    found = [
        GraphTask(
            str(row["id"]), status_from(row["status"]).value, strings(row["depends_on"]) or ()
        )
        for row in rows
    ]
    return sorted(found, key=lambda task: task.id), int(total)


def dependents(conn: Connection, project: str, task_id: str, limit: int) -> list[GraphTask]:
    """Return the tasks of the project that wait for this one."""
    rows = conn.execute(
        "SELECT id, status, depends_on FROM tasks WHERE project = ? AND instr(depends_on, ?)"
        " ORDER BY id LIMIT ?",
        (project, json.dumps(task_id, ensure_ascii=False), limit),
    )
    return [
        GraphTask(str(row["id"]), status_from(row["status"]).value, ())
        for row in rows
        if task_id in (strings(row["depends_on"]) or ())
    ]


def reputations(conn: Connection) -> dict[str, Reputation]:
    """Return what node_reputation says, by node."""
    rows = conn.execute("SELECT node, score, total_tasks, failed_validations FROM node_reputation")
    return {
        str(row["node"]): Reputation(
            whole(row["score"], 100), whole(row["total_tasks"], 0),
            whole(row["failed_validations"], 0),
        )
        for row in rows
    }  # fmt: skip


def endings_by_hour(conn: Connection, after: int, until: int) -> list[tuple[str, str, int]]:
    """Return (hour as `2026-11-24T08`, event type, number) of the events with after < id ≤ until.

    Only attempts that ended; hours are UTC, as the controller writes its times.
    """
    rows = conn.execute(
        "SELECT substr(timestamp, 1, 13) AS hour, event_type, count(*) AS n FROM events"
        " WHERE id > ? AND id <= ? AND event_type IN ('task_completed', 'task_failed')"
        " GROUP BY hour, event_type",
        (after, until),
    )
    return [(str(row["hour"]), str(row["event_type"]), int(row["n"])) for row in rows]


def _line(row: sqlite3.Row) -> TaskLine:
    def text(name: str) -> str | None:
        return None if row[name] is None else str(row[name])

    return TaskLine(
        id=str(row["id"]),
        project=str(row["project"]),
        status=status_from(row["status"]).value,
        node=text("node"),
        attempt=whole(row["attempt"], 0),
        max_retries=whole(row["max_retries"], 2),
        priority=whole(row["priority"], 2),
        error=text("error"),
        started_at=parse_iso(row["started_at"]),
        completed_at=parse_iso(row["completed_at"]),
        duration_seconds=number(row["duration_seconds"]),
        estimated_minutes=whole(row["estimated_minutes"], 30) or 30,
        updated_at=number(row["updated_at"]),
    )
