"""What the factory reads of the database, and the rows in `events` that are its memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dispatch_controller.core.allowance import WINDOW
from dispatch_controller.core.gaps import Ended
from dispatch_controller.core.ledger import KEPT
from dispatch_controller.core.times import parse_iso
from dispatch_controller.model import Cause, Task, TaskStatus
from dispatch_controller.store import events, tasks
from dispatch_controller.store.writer import Connection

MOST_COMPLETED = 500
MOST_ENDED = 200
MOST_WAITING = 2000


@dataclass(frozen=True, slots=True)
class Row:
    """An event of the factory."""

    event_type: str
    details: Mapping[str, Any]
    task_id: str | None = None


def remembered(conn: Connection) -> list[tuple[float, Row]]:
    """Return (Unix seconds, row) of the factory's events, oldest first: read once, at its start."""
    rows = conn.execute(
        "SELECT timestamp, task_id, event_type, details FROM events"
        " WHERE event_type IN (SELECT value FROM json_each(?)) ORDER BY id",
        (json.dumps(KEPT),),
    )
    found = []
    for row in rows:
        try:
            details = json.loads(row["details"] or "{}")
        except ValueError:
            continue
        at = parse_iso(row["timestamp"])
        if isinstance(details, dict) and at is not None:
            found.append((at, Row(row["event_type"], details, row["task_id"])))
    return found


def add(conn: Connection, now: float, rows: Iterable[Row]) -> None:
    for row in rows:
        events.add(conn, now, row.event_type, task_id=row.task_id, **row.details)


@dataclass(frozen=True, slots=True)
class Standing:
    """How the tasks of one project stand."""

    counts: Mapping[str, int] = field(default_factory=dict)
    ended: tuple[TaskStatus, ...] = ()
    """The last that ended, newest first."""
    generated: tuple[TaskStatus, ...] = ()
    """The last generated ones, oldest first."""


def standings(
    conn: Connection, projects: Iterable[str], generated: Mapping[str, Sequence[str]]
) -> dict[str, Standing]:
    """Return how every project stands that has a task or is among `projects`.

    `generated` are the ids of each project's generated tasks, oldest first.
    """
    counts: dict[str, dict[str, int]] = {name: {} for name in projects}
    for row in conn.execute(
        "SELECT project, status, count(*) AS n FROM tasks GROUP BY project, status"
    ):
        counts.setdefault(row["project"], {})[row["status"]] = row["n"]
    last = {name: list(own)[-WINDOW:] for name, own in generated.items()}
    states = tasks.statuses(conn, sorted({task for own in last.values() for task in own}))
    return {
        name: Standing(
            counts[name],
            _last_ended(conn, name) if counts[name] else (),
            tuple(states[task] for task in last.get(name, ()) if task in states),
        )
        for name in sorted(counts)
    }


def _last_ended(conn: Connection, project: str) -> tuple[TaskStatus, ...]:
    rows = conn.execute(
        "SELECT status FROM tasks WHERE project = ? AND status IN ('completed', 'failed',"
        " 'deadletter') ORDER BY coalesce(updated_at, 0) DESC, coalesce(completed_at, '') DESC,"
        " id DESC LIMIT ?",
        (project, WINDOW),
    )
    return tuple(TaskStatus(row["status"]) for row in rows)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the database says of a project's work."""

    ended: tuple[Ended, ...]
    """Failed and dead tasks, newest first."""
    completed: tuple[Task, ...]
    """Newest first."""
    waiting: tuple[Task, ...]
    """Pending tasks that depend on something."""
    ids: tuple[tuple[str, str], ...]
    """(id, project) of every task there is."""


def evidence(conn: Connection, project: str) -> Evidence:
    failed = _of_project(conn, project, "status IN ('failed', 'deadletter')", MOST_ENDED)
    told = events.of_types(conn, [task.id for task in failed], ["task_failed", "task_deadletter"])
    ended = tuple(Ended(task, _cause(told[task.id])) for task in failed)
    completed = _of_project(conn, project, "status = 'completed'", MOST_COMPLETED)
    waiting = _of_project(
        conn, project, "status = 'pending' AND depends_on NOT IN ('[]', '')", MOST_WAITING
    )
    pairs = conn.execute("SELECT id, project FROM tasks ORDER BY id").fetchall()
    return Evidence(
        ended,
        tuple(completed),
        tuple(waiting),
        tuple((row["id"], row["project"]) for row in pairs),
    )


def _of_project(conn: Connection, project: str, condition: str, limit: int) -> list[Task]:
    rows = conn.execute(
        f"SELECT * FROM tasks WHERE project = ? AND {condition}"
        " ORDER BY coalesce(updated_at, 0) DESC, id LIMIT ?",
        (project, limit),
    )
    return [tasks.task_from(row) for row in rows]


def _cause(told: Sequence[events.Event]) -> Cause | None:
    for event in reversed(told):
        cause = event.details.get("cause")
        if cause in set(Cause):
            return Cause(str(cause))
    return None


def ids_of_files(conn: Connection, spec_files: Sequence[str]) -> dict[str, str]:
    """Return file → task id for those of the spec files that are registered."""
    rows = conn.execute(
        "SELECT id, spec_file FROM tasks WHERE spec_file IN (SELECT value FROM json_each(?))",
        (json.dumps(spec_files),),
    )
    return {row["spec_file"]: row["id"] for row in rows}
