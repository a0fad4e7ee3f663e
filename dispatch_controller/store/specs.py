"""What registration reads of the tasks, and its plan written to them."""

from __future__ import annotations

import json
from functools import lru_cache

from dispatch_controller.core.plan import KnownTask, Plan
from dispatch_controller.store import events, transitions
from dispatch_controller.store.tasks import status_from, strings, whole
from dispatch_controller.store.writer import Connection


def known(conn: Connection) -> list[KnownTask]:
    """Return all tasks, as far as registration looks at them, by id."""
    rows = conn.execute(
        "SELECT id, project, spec_file, spec_hash, status, depends_on, modifies, exclusive,"
        " priority, max_retries, estimated_minutes FROM tasks ORDER BY id"
    )
    return [_known(*row) for row in rows]


@lru_cache(maxsize=16384)  # this is asked every 30 s, and hardly a row is another then
def _known(
    task_id: str, project: str, spec_file: str, spec_hash: str | None, status: object,
    depends_on: object, modifies: object, exclusive: object, priority: object,
    max_retries: object, estimated_minutes: object,
) -> KnownTask:  # fmt: skip
    return KnownTask(
        id=task_id,
        project=project,
        spec_file=spec_file,
        spec_hash=spec_hash,
        status=status_from(status),
        depends_on=strings(depends_on),
        modifies=strings(modifies) or (),
        exclusive=bool(exclusive),
        priority=whole(priority, 2),
        max_retries=whole(max_retries, 2),
        estimated_minutes=whole(estimated_minutes, 30),
    )


def write_plan(conn: Connection, now: float, plan: Plan) -> None:
    """Write what a registration changes. Rows that have moved on since are left as they are."""
    for columns in plan.inserts:
        transitions.register(conn, now, columns)
    for columns in plan.updates:
        transitions.update_from_spec(conn, now, columns)
    conn.executemany(
        "UPDATE tasks SET depends_on = ? WHERE id = ? AND status IN ('pending', 'failed')",
        [(json.dumps(parents, ensure_ascii=False), task_id) for task_id, parents in plan.links],
    )
    conn.executemany(
        "UPDATE tasks SET spec_hash = ? WHERE id = ? AND spec_hash IS NULL",
        [(spec_hash, task_id) for task_id, spec_hash in plan.hashes],
    )
    for event in plan.events:
        events.add(conn, now, event.event_type, task_id=event.task_id, **event.details)
