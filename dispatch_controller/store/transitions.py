"""Every change of `tasks.status`, and nothing else writes that column.

Each transition is one guarded UPDATE that says whether it happened, and writes one row to `events`
in the same transaction (scheduling.md, States); one more where it refunds the attempt. `lease` is
the fencing token of an attempt: what carries another one changes nothing. A task that an old
program started has none: its lease is "".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dispatch_controller.core.plan import SpecColumns
from dispatch_controller.core.times import iso
from dispatch_controller.model import BACKOFF_OWNER, Cause, Claim
from dispatch_controller.store import events, file_locks, reputation, tasks
from dispatch_controller.store.reputation import Merit
from dispatch_controller.store.tasks import NO_LIVE_LEASE
from dispatch_controller.store.writer import Connection

_HELD = "status IN ('claimed', 'running')"
_SAME_LEASE = "coalesce(lease_owner, '') = :lease"


def spec_columns(spec: SpecColumns) -> dict[str, object]:
    """Return the columns that come from a spec, as the database holds them."""
    return {
        **{name: getattr(spec, name) for name in SpecColumns.__slots__},
        "depends_on": json.dumps(spec.depends_on, ensure_ascii=False),
        "modifies": json.dumps(spec.modifies, ensure_ascii=False),
        "exclusive": int(spec.exclusive),
    }


def register(conn: Connection, now: float, new: SpecColumns) -> bool:
    """(none) → pending. Never overwrites."""
    inserted = conn.execute(
        "INSERT OR IGNORE INTO tasks (id, project, spec_file, spec_hash, status, depends_on,"
        " modifies, exclusive, priority, estimated_minutes, max_retries, updated_at) VALUES"
        " (:id, :project, :spec_file, :spec_hash, 'pending', :depends_on, :modifies, :exclusive,"
        " :priority, :estimated_minutes, :max_retries, :now)",
        {**spec_columns(new), "now": int(now)},
    )
    if not inserted.rowcount:
        return False
    events.add(
        conn, now, "task_registered", task_id=new.id, project=new.project, spec_file=new.spec_file
    )
    return True


def update_from_spec(conn: Connection, now: float, new: SpecColumns) -> bool:
    """Bring what comes from the spec up to date in a task that is pending or failed."""
    updated = conn.execute(
        "UPDATE tasks SET spec_file = :spec_file, spec_hash = :spec_hash,"
        " depends_on = :depends_on, modifies = :modifies, exclusive = :exclusive,"
        " priority = :priority, estimated_minutes = :estimated_minutes,"
        " max_retries = :max_retries, updated_at = :now"
        " WHERE id = :id AND project = :project AND status IN ('pending', 'failed')",
        {**spec_columns(new), "now": int(now)},
    )
    if not updated.rowcount:
        return False
    events.add(conn, now, "spec_updated", task_id=new.id, spec_file=new.spec_file)
    return True


@dataclass(frozen=True, slots=True)
class NewLease:
    """One placement, as the claim writes it."""

    task_id: str
    node: str
    executor: str
    lease_owner: str
    locks: tuple[str, ...] = ()
    """Files that an exclusive task takes in file_locks."""


def claim(
    conn: Connection, now: float, leases: Sequence[NewLease], held: frozenset[str]
) -> list[Claim]:
    """Pending → claimed, all placements of a pass together; returns those that were claimed.

    `held` are the ids that were claimed or running when the pass looked. Where another program
    has claimed something since, nothing is claimed: the pass was made for another world.
    A fixed number of statements, however many placements there are; `+status` keeps SQLite from
    walking all pending tasks for each of them.
    """
    at_work = conn.execute(f"SELECT id FROM tasks WHERE {_HELD}")
    if any(row["id"] not in held for row in at_work):
        return []
    payload = json.dumps([[new.task_id, new.node, new.lease_owner] for new in leases])
    claimed = conn.execute(
        "UPDATE tasks SET status = 'claimed', node = new.node, lease_owner = new.lease,"
        " lease_expires_at = :second + coalesce(nullif(visibility_timeout, 0), 300),"
        " attempt = coalesce(attempt, 0) + 1, started_at = :iso, completed_at = NULL,"
        " collected_at = NULL, heartbeat_at = NULL, pid = NULL, error = NULL,"
        " duration_seconds = NULL, updated_at = :second FROM (SELECT"
        " json_extract(value, '$[0]') AS task_id, json_extract(value, '$[1]') AS node,"
        " json_extract(value, '$[2]') AS lease FROM json_each(:payload)) AS new"
        f" WHERE tasks.id = new.task_id AND +status = 'pending' AND {NO_LIVE_LEASE} RETURNING *",
        {"second": int(now), "iso": iso(now), "now": now, "payload": payload},
    ).fetchall()
    rows = {row["id"]: tasks.task_from(row) for row in claimed}
    wanted = {new.task_id: new for new in leases if new.task_id in rows}
    told = conn.execute(
        "INSERT INTO events (timestamp, task_id, event_type, node, details)"
        " SELECT :iso, json_extract(value, '$[0]'), 'task_claimed', json_extract(value, '$[1]'),"
        " json_object('lease', json_extract(value, '$[2]'), 'attempt',"
        " json_extract(value, '$[3]'), 'executor', json_extract(value, '$[4]'))"
        " FROM json_each(:claimed) WHERE true ORDER BY key RETURNING id, task_id",
        {
            "iso": iso(now),
            "claimed": json.dumps(
                [
                    [task_id, new.node, new.lease_owner, rows[task_id].attempt, new.executor]
                    for task_id, new in wanted.items()
                ]
            ),
        },
    ).fetchall()
    claims = [
        Claim(
            task=rows[task_id],
            node=wanted[task_id].node,
            executor=wanted[task_id].executor,
            lease_owner=wanted[task_id].lease_owner,
            attempt=rows[task_id].attempt,
            sequence=sequence,
        )
        for sequence, task_id in sorted((row["id"], row["task_id"]) for row in told)
    ]
    locks = [(path, claim.task.id) for claim in claims for path in wanted[claim.task.id].locks]
    if locks:
        file_locks.take(conn, now, locks)
    return claims


def confirm(
    conn: Connection, now: float, task_id: str, lease: str, *, pid: int | None, log_file: str | None
) -> bool:
    """Claimed → running: the node confirmed that the process exists."""
    updated = conn.execute(
        "UPDATE tasks SET status = 'running', pid = :pid, log_file = :log, started_at = :iso,"
        " heartbeat_at = :iso, updated_at = :second,"
        " lease_expires_at = :second + coalesce(nullif(visibility_timeout, 0), 300)"
        f" WHERE id = :id AND status = 'claimed' AND {_SAME_LEASE}",
        {
            "pid": pid,
            "log": log_file,
            "iso": iso(now),
            "second": int(now),
            "id": task_id,
            "lease": lease,
        },
    )
    if not updated.rowcount:
        return False
    events.add(conn, now, "task_running", task_id=task_id, node=_node_of(lease), lease=lease)
    return True


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended, as columns."""

    completed: bool
    error: str | None = None
    duration_seconds: float | None = None
    completed_at: float | None = None
    log_file: str | None = None
    artifact_hash: str | None = None
    artifact_patch: str | None = None
    loc_added: int = 0
    loc_removed: int = 0
    files_changed: int = 0


def finish(
    conn: Connection,
    now: float,
    task_id: str,
    lease: str,
    attempt: int,
    ending: Ending,
    details: Mapping[str, object],
) -> bool:
    """Claimed or running → completed or failed. `details` goes into the event.

    The attempt is refunded where their `cause` costs no retry.
    """
    status = "completed" if ending.completed else "failed"
    updated = conn.execute(
        "UPDATE tasks SET status = :status, completed_at = :completed_at, collected_at = :iso,"
        " error = :error, duration_seconds = :duration, log_file = coalesce(:log, log_file),"
        " artifact_hash = :artifact_hash, artifact_patch = CASE :status WHEN 'failed'"
        " THEN coalesce(:artifact_patch, artifact_patch) ELSE :artifact_patch END,"
        " loc_added = :loc_added, loc_removed = :loc_removed, files_changed = :files_changed,"
        " lease_expires_at = NULL, updated_at = :second"
        f" WHERE id = :id AND {_HELD} AND {_SAME_LEASE} AND coalesce(attempt, 0) = :attempt",
        {
            "status": status,
            "completed_at": iso(now if ending.completed_at is None else ending.completed_at),
            "iso": iso(now),
            "error": ending.error,
            "duration": ending.duration_seconds,
            "log": ending.log_file,
            "artifact_hash": ending.artifact_hash,
            "artifact_patch": ending.artifact_patch,
            "loc_added": ending.loc_added,
            "loc_removed": ending.loc_removed,
            "files_changed": ending.files_changed,
            "second": int(now),
            "id": task_id,
            "lease": lease,
            "attempt": attempt,
        },
    )
    if not updated.rowcount:
        return False
    file_locks.release(conn, task_id)
    events.add(
        conn, now, f"task_{status}", task_id=task_id, node=_node_of(lease), lease=lease,
        attempt=attempt, **details,
    )  # fmt: skip
    cause = details.get("cause")
    if isinstance(cause, Cause) and not cause.costs_a_retry:
        events.add(
            conn, now, "attempt_refunded", task_id=task_id, node=_node_of(lease), lease=lease,
            cause=cause, why=ending.error,
        )  # fmt: skip
    return True


def give_back(
    conn: Connection,
    now: float,
    task_id: str,
    lease: str,
    *,
    cause: Cause,
    why: str,
    until: float | None = None,
    merit: Merit | None = None,
    artifact_patch: str | None = None,
) -> bool:
    """Claimed or running → pending: the attempt never ran, or is gone without a result.

    The attempt is refunded where its cause costs no retry. `until` (Unix seconds) holds it back;
    `merit` is what that does to the node's reputation; `artifact_patch` is where what it made was
    saved.
    """
    updated = conn.execute(
        "UPDATE tasks SET status = 'pending', node = NULL, pid = NULL, error = NULL,"
        " started_at = NULL, heartbeat_at = NULL, lease_owner = :owner,"
        " lease_expires_at = :until, updated_at = :second,"
        " artifact_patch = coalesce(:artifact_patch, artifact_patch)"
        f" WHERE id = :id AND {_HELD} AND {_SAME_LEASE}",
        {
            "artifact_patch": artifact_patch,
            "owner": None if until is None else BACKOFF_OWNER,
            "until": None if until is None else int(until),
            "second": int(now),
            "id": task_id,
            "lease": lease,
        },
    )
    if not updated.rowcount:
        return False
    file_locks.release(conn, task_id)
    node = _node_of(lease)
    if merit is not None and node is not None:
        reputation.count(conn, now, node, merit)
    event = "task_returned" if cause.costs_a_retry else "attempt_refunded"
    events.add(
        conn, now, event, task_id=task_id, node=_node_of(lease), lease=lease, cause=cause, why=why
    )
    return True


def retry(
    conn: Connection, now: float, task_id: str, attempt: int, *, until: float, max_retries: int,
    why: str, extended: str | None = None,
) -> bool:  # fmt: skip
    """Failed → pending, held back until `until` (Unix seconds) by a back-off lease.

    `extended` says for what the guardian raised max_retries: "timeout" is granted only once.
    """
    updated = conn.execute(
        "UPDATE tasks SET status = 'pending', node = NULL, pid = NULL, error = NULL,"
        " started_at = NULL, heartbeat_at = NULL, lease_owner = :owner,"
        " lease_expires_at = :until, max_retries = :max_retries, updated_at = :second"
        " WHERE id = :id AND status = 'failed' AND coalesce(attempt, 0) = :attempt",
        {
            "owner": BACKOFF_OWNER,
            "until": int(until),
            "max_retries": max_retries,
            "second": int(now),
            "id": task_id,
            "attempt": attempt,
        },
    )
    if not updated.rowcount:
        return False
    events.add(
        conn, now, "task_retry", task_id=task_id, attempt=attempt, until=iso(until),
        max_retries=max_retries, why=why, **({"extended": extended} if extended else {}),
    )  # fmt: skip
    return True


def bury(
    conn: Connection, now: float, task_id: str, attempt: int, *, cause: Cause, why: str
) -> bool:
    """Failed → deadletter: no retry is left. The last error stays in the row."""
    updated = conn.execute(
        "UPDATE tasks SET status = 'deadletter', updated_at = :second"
        " WHERE id = :id AND status = 'failed' AND coalesce(attempt, 0) = :attempt",
        {"second": int(now), "id": task_id, "attempt": attempt},
    )
    if not updated.rowcount:
        return False
    events.add(conn, now, "task_deadletter", task_id=task_id, attempt=attempt, cause=cause, why=why)
    return True


def cancel(conn: Connection, now: float, task_id: str, *, lease: str | None, why: str) -> bool:
    """Any but completed → deadletter. A held task only with its lease, when its process is gone."""
    updated = conn.execute(
        "UPDATE tasks SET status = 'deadletter', error = :why, completed_at = :iso,"
        " lease_owner = NULL, lease_expires_at = NULL, updated_at = :second WHERE id = :id AND"
        f" (status IN ('pending', 'failed') OR ({_HELD} AND {_SAME_LEASE}))",
        {"why": why, "iso": iso(now), "second": int(now), "id": task_id, "lease": lease},
    )
    if not updated.rowcount:
        return False
    file_locks.release(conn, task_id)
    events.add(
        conn, now, "task_deadletter", task_id=task_id, cause=Cause.OPERATOR, why=why, lease=lease
    )
    return True


def revive(conn: Connection, now: float, task_id: str) -> bool:
    """Deadletter or failed → pending, on the operator's word: attempt restarts at 0."""
    updated = conn.execute(
        "UPDATE tasks SET status = 'pending', attempt = 0, node = NULL, pid = NULL, error = NULL,"
        " started_at = NULL, completed_at = NULL, collected_at = NULL, heartbeat_at = NULL,"
        " lease_owner = NULL, lease_expires_at = NULL, updated_at = :second"
        " WHERE id = :id AND status IN ('deadletter', 'failed')",
        {"second": int(now), "id": task_id},
    )
    if not updated.rowcount:
        return False
    events.add(conn, now, "operator_retry", task_id=task_id)
    return True


def renew(
    conn: Connection, now: float, beats: Sequence[tuple[str, str, float, int | None]]
) -> None:
    """Prolong leases: (task, lease, heartbeat in Unix seconds, pid). Changes no status."""
    conn.executemany(
        "UPDATE tasks SET heartbeat_at = ?, collected_at = ?, pid = coalesce(?, pid),"
        " lease_expires_at = ? + coalesce(nullif(visibility_timeout, 0), 300)"
        f" WHERE id = ? AND {_HELD} AND coalesce(lease_owner, '') = ?",
        [
            (iso(heartbeat), iso(now), pid, int(now), task_id, lease)
            for task_id, lease, heartbeat, pid in beats
        ],
    )


_EXPIRED = (
    "status = 'pending' AND lease_owner IS NOT NULL AND"
    " (lease_expires_at IS NULL OR CAST(lease_expires_at AS REAL) <= ?)"
)


def has_expired(conn: Connection, now: float) -> bool:
    """Whether there is anything for `clear_expired` to do."""
    found = conn.execute(f"SELECT 1 FROM tasks WHERE {_EXPIRED} LIMIT 1", (now,)).fetchone()
    return found is not None


def clear_expired(conn: Connection, now: float) -> None:
    """Clear expired leases of pending tasks (a back-off that is over among them)."""
    conn.execute(
        f"UPDATE tasks SET lease_owner = NULL, lease_expires_at = NULL WHERE {_EXPIRED}", (now,)
    )


def _node_of(lease: str) -> str | None:
    """Return the node's name out of `<node>:<8 hex>`; None where there is none."""
    return lease.rpartition(":")[0] or None
