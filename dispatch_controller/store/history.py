"""What `events` says of failed tasks, as the retry rules need it."""

from __future__ import annotations

from collections.abc import Sequence

from dispatch_controller.core.retry import Failure, History
from dispatch_controller.model import Cause, Task, TaskStatus
from dispatch_controller.store import events, tasks
from dispatch_controller.store.events import Event
from dispatch_controller.store.writer import Connection

_TYPES = ("task_failed", "attempt_refunded", "operator_retry", "task_retry")


def failed(conn: Connection) -> list[tuple[Task, History]]:
    """Return the failed tasks with their histories, by id."""
    rows = tasks.in_status(conn, TaskStatus.FAILED)
    if not rows:
        return []
    found = events.of_types(conn, [task.id for task in rows], _TYPES)
    return [(task, _history(found[task.id])) for task in rows]


def _history(told: Sequence[Event]) -> History:
    """Only what came after the operator's last retry counts: attempt restarted at 0 then."""
    starts = [n for n, event in enumerate(told) if event.event_type == "operator_retry"]
    recent = told[starts[-1] + 1 :] if starts else told
    return History(
        refunds=sum(event.event_type == "attempt_refunded" for event in recent),
        failures=tuple(_failure(e) for e in recent if e.event_type == "task_failed"),
        extended_for_timeout=any(
            event.event_type == "task_retry" and event.details.get("extended") == "timeout"
            for event in recent
        ),
    )


def cause_from(told: object) -> Cause:
    """Return the cause that an event's details name; UNKNOWN where they name none."""
    return Cause(told) if isinstance(told, str) and told in set(Cause) else Cause.UNKNOWN


def _failure(event: Event) -> Failure:
    cause, reason = event.details.get("cause"), event.details.get("reason")
    exit_code = event.details.get("exit_code")
    return Failure(
        cause=cause_from(cause),
        reason=reason if isinstance(reason, str) else None,
        exit_code=exit_code if isinstance(exit_code, int) else None,
    )


def last_failures(conn: Connection) -> dict[str, tuple[str, str]]:
    """Return for pending tasks that have run before: on which node, and what it failed of.

    Read once, at the start of the process: so the next attempt still prefers another node.
    """
    rows = conn.execute("SELECT id FROM tasks WHERE status = 'pending' AND attempt > 0 ORDER BY id")
    again = [row["id"] for row in rows if row["id"] is not None]
    if not again:
        return {}
    told = events.of_types(conn, again, ("task_failed", "attempt_refunded", "operator_retry"))
    found = {}
    for task_id, happened in told.items():
        last = happened[-1] if happened else None
        if last is not None and last.node is not None and last.event_type != "operator_retry":
            error = last.details.get("error") or last.details.get("why") or ""
            found[task_id] = (last.node, str(error))
    return found
