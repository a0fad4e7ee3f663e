"""The table `events`: the history of every task, appended to and never changed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dispatch_controller.core.times import iso
from dispatch_controller.store.writer import Connection


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    timestamp: str
    task_id: str | None
    event_type: str
    node: str | None
    details: Mapping[str, object]


def add(
    conn: Connection,
    now: float,
    event_type: str,
    *,
    task_id: str | None = None,
    node: str | None = None,
    **details: object,
) -> None:
    conn.execute(
        "INSERT INTO events (timestamp, task_id, event_type, node, details) VALUES (?, ?, ?, ?, ?)",
        (iso(now), task_id, event_type, node, json.dumps(details, ensure_ascii=False)),
    )


def of_task(conn: Connection, task_id: str, limit: int = 200) -> list[Event]:
    """Return the newest events of a task, oldest first."""
    rows = conn.execute(
        "SELECT * FROM events WHERE task_id = ? ORDER BY id DESC LIMIT ?", (task_id, limit)
    ).fetchall()
    return [_event(row) for row in reversed(rows)]


def page(conn: Connection, before: int | None, limit: int) -> list[Event]:
    """Return events newest first, those with an id below `before`."""
    rows = conn.execute(
        "SELECT * FROM events WHERE id < ? ORDER BY id DESC LIMIT ?",
        (before if before is not None else 1 << 62, limit),
    )
    return [_event(row) for row in rows]


def since(conn: Connection, after: int, limit: int) -> list[Event]:
    """Return events with an id above `after`, oldest first."""
    rows = conn.execute("SELECT * FROM events WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
    return [_event(row) for row in rows]


def last_id(conn: Connection) -> int:
    return int(conn.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0])


def of_types(
    conn: Connection, task_ids: Sequence[str], types: Sequence[str]
) -> dict[str, list[Event]]:
    """Return for each task its events of these types, oldest first."""
    rows = conn.execute(
        "SELECT * FROM events WHERE event_type IN (SELECT value FROM json_each(:types))"
        " AND task_id IN (SELECT value FROM json_each(:ids)) ORDER BY id",
        {"types": json.dumps(types), "ids": json.dumps(task_ids)},
    )
    found: dict[str, list[Event]] = {task_id: [] for task_id in task_ids}
    for row in rows:
        found[row["task_id"]].append(_event(row))
    return found


def claim_sequence(conn: Connection, task_id: str, lease: str) -> int | None:
    """Return the id of the event by which the task was claimed under this lease."""
    claims = of_types(conn, [task_id], ["task_claimed"])[task_id]
    return next(
        (event.id for event in reversed(claims) if event.details.get("lease") == lease), None
    )


def _event(row: sqlite3.Row) -> Event:
    details = row["details"]
    try:
        parsed = json.loads(details) if details else {}
    except (ValueError, RecursionError):
        parsed = {"text": str(details)}  # other programs write what they like here
    if not isinstance(parsed, dict):
        parsed = {"value": parsed}
    return Event(
        id=row["id"],
        timestamp=row["timestamp"],
        task_id=row["task_id"],
        event_type=row["event_type"] or "",
        node=row["node"],
        details=parsed,
    )
