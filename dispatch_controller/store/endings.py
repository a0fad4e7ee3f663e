"""The controller's wish to end a process, kept as an event until its task is no longer held."""

from __future__ import annotations

from dispatch_controller.core.reports import EndedByUs
from dispatch_controller.model import HELD, Task
from dispatch_controller.store import events, tasks
from dispatch_controller.store.history import cause_from
from dispatch_controller.store.writer import Connection

EVENT = "ending"


def add(conn: Connection, now: float, task: Task, ending: EndedByUs) -> None:
    events.add(
        conn, now, EVENT, task_id=task.id, node=task.node, lease=task.lease_owner,
        cause=ending.cause, why=ending.why, cancelled=ending.cancelled,
    )  # fmt: skip


def standing(conn: Connection) -> dict[str, EndedByUs]:
    """Return by `Task.holding` what is still to be ended: read once, at the process's start."""
    held = {task.id: task for task in tasks.in_status(conn, *HELD)}
    found: dict[str, EndedByUs] = {}
    if not held:
        return found
    for task_id, wishes in events.of_types(conn, sorted(held), [EVENT]).items():
        for wish in wishes:
            lease = wish.details.get("lease")
            if lease == held[task_id].lease_owner:
                found[held[task_id].holding] = EndedByUs(
                    cause_from(wish.details.get("cause")),
                    str(wish.details.get("why")),
                    bool(wish.details.get("cancelled")),
                )
    return found
