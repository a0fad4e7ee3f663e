"""What the metrics read of the events: each event once, and the rows that it is about."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from dispatch_controller.core.times import iso, parse_iso
from dispatch_controller.store.writer import Connection

PAGE = 20_000

RUNNABLE = ("task_registered", "task_retry", "operator_retry", "attempt_refunded", "task_returned")
"""Events with which a task itself may run (or, `task_retry`, may from a time it names)."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What happened since the last look. Times in Unix seconds, durations in seconds."""

    last_id: int
    more: bool
    """Whether there is more than one page of it."""
    counts: Mapping[str, int]
    """By event type."""
    failures: Mapping[str, int]
    """Failed attempts by cause."""
    runnable: Mapping[str, float]
    """Tasks that may run, and from when, as far as they themselves go."""
    started: Mapping[str, float]
    """Tasks that run now, and since when."""
    parents_done: Mapping[str, float]
    """When the last dependency of those tasks was completed."""
    report_latencies: tuple[float, ...]
    """From finished to recorded."""


def first_id(conn: Connection, since: float) -> int:
    """Return the id after which the events since that time (Unix seconds) lie."""
    row = conn.execute("SELECT min(id) FROM events WHERE timestamp >= ?", (iso(since),)).fetchone()
    if row[0] is not None:
        return int(row[0]) - 1
    return int(conn.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0])


def measure(conn: Connection, after: int) -> Measured:
    """Return what the events after that id say."""
    rows = conn.execute(
        "SELECT id, timestamp, task_id, event_type, details FROM events WHERE id > ?"
        " ORDER BY id LIMIT ?",
        (after, PAGE),
    ).fetchall()
    counts: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    runnable: dict[str, float] = {}
    started: dict[str, float] = {}
    ended: list[str] = []
    for row in rows:
        kind, task_id, at = row["event_type"] or "", row["task_id"], parse_iso(row["timestamp"])
        counts[kind] += 1
        if task_id is None or at is None:
            continue
        if kind in RUNNABLE:
            until = _details(row["details"]).get("until") if kind == "task_retry" else None
            runnable[task_id] = max(at, parse_iso(until) or at)
        elif kind == "task_running":
            started[task_id] = at
        elif kind in ("task_completed", "task_failed"):
            ended.append(task_id)
            if kind == "task_failed":
                failures[str(_details(row["details"]).get("cause", "unknown"))] += 1
    return Measured(
        last_id=rows[-1]["id"] if rows else after,
        more=len(rows) == PAGE,
        counts=counts,
        failures=failures,
        runnable=runnable,
        started=started,
        parents_done=_parents_done(conn, list(started)),
        report_latencies=_report_latencies(conn, ended),
    )


def _details(text: str | None) -> dict[str, object]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _parents_done(conn: Connection, ids: list[str]) -> dict[str, float]:
    rows = conn.execute(
        "SELECT t.id, p.completed_at FROM tasks t, json_each(t.depends_on) d"
        " JOIN tasks p ON p.id = d.value WHERE t.id IN (SELECT value FROM json_each(?))"
        " AND json_valid(t.depends_on) AND p.collected_at IS NOT NULL",
        (json.dumps(ids),),
    )
    done: dict[str, float] = {}
    for row in rows:
        at = parse_iso(row["completed_at"])
        if at is not None:
            done[row["id"]] = max(at, done.get(row["id"], at))
    return done


def _report_latencies(conn: Connection, ids: list[str]) -> tuple[float, ...]:
    rows = conn.execute(
        "SELECT completed_at, collected_at FROM tasks WHERE status IN ('completed', 'failed')"
        " AND id IN (SELECT value FROM json_each(?))",
        (json.dumps(ids),),
    )
    pairs = [(parse_iso(row["completed_at"]), parse_iso(row["collected_at"])) for row in rows]
    return tuple(
        max(0.0, recorded - finished)
        for finished, recorded in pairs
        if finished is not None and recorded is not None
    )
