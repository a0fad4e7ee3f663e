"""/api/v1: tasks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from quart import Blueprint, Response
from quart_schema import tag_blueprint

from dispatch_controller.core import ids
from dispatch_controller.core.placement import Reason
from dispatch_controller.loops.conditions import reasons
from dispatch_controller.model import TaskStatus
from dispatch_controller.store import events, tasks, views
from dispatch_controller.store.tasks import Filter
from dispatch_controller.store.writer import Connection
from dispatch_controller.web import new_tasks, reading
from dispatch_controller.web.answers import ok, refuse
from dispatch_controller.web.documented import changes, reads
from dispatch_controller.web.parts import Parts, parts
from dispatch_controller.web.types import (
    LogQuery,
    LogShown,
    NewTask,
    Nothing,
    TaskPage,
    TaskQuery,
    TaskRow,
    TaskShown,
)

blueprint = Blueprint("api_tasks", __name__, url_prefix="/api/v1/tasks")
tag_blueprint(blueprint, ["tasks"])

MOST_EVENTS = 200
"""Newest events shown with a task."""


@blueprint.get("")
@reads(TaskPage, query=TaskQuery)
async def list_tasks() -> Response:
    """List tasks by id; pending ones with the reason why they do not run."""
    asked = reading.query(TaskQuery)
    here = parts()
    where = Filter(asked.status, asked.project, asked.node, asked.q)
    rows, total = await here.context.store.read(tasks.page, where, asked.limit, asked.offset)
    return ok({"tasks": await _with_reasons(here, rows), "total": total})


@blueprint.post("")
@changes(TaskRow, NewTask, 409, status=201)
async def create_task() -> Response:
    """Create a task: its spec is written into the project's folder, never over another file."""
    new = await reading.body(NewTask)
    here = parts()
    registered = await new_tasks.create(here, new)
    return ok(await shown(here, registered), 201)


@blueprint.get("/<task_id>")
@reads(TaskShown, 404)
async def show_task(task_id: str) -> Response:
    """Show one task with its newest events."""
    return ok(await shown(parts(), reading.task_id(task_id), with_events=True))


@blueprint.post("/<task_id>/retry")
@changes(TaskRow, Nothing, 404, 409)
async def retry_task(task_id: str) -> Response:
    """Make a failed or given-up task pending again, from its first attempt on."""
    here = parts()
    await here.operator.retry(reading.task_id(task_id))
    return ok(await shown(here, task_id))


@blueprint.post("/<task_id>/cancel")
@changes(TaskRow, Nothing, 404, 409)
async def cancel_task(task_id: str) -> Response:
    """Give a task up; one that runs is ended first, and stays as it is until its node says so."""
    here = parts()
    await here.operator.cancel(reading.task_id(task_id))
    return ok(await shown(here, task_id))


@blueprint.get("/<task_id>/log")
@reads(LogShown, 404, 409, query=LogQuery)
async def task_log(task_id: str) -> Response:
    """Give a piece of the log of a task's last attempt, from the node that has it."""
    asked = reading.query(LogQuery)
    piece = await parts().operator.read_log(reading.task_id(task_id), asked.offset, asked.limit)
    return ok(asdict(piece))


async def shown(here: Parts, task_id: str, *, with_events: bool = False) -> dict[str, Any]:
    """Return a task as the API shows it. Raises Problem (404)."""

    def read(conn: Connection) -> tuple[dict[str, object] | None, list[events.Event]]:
        told = events.of_task(conn, task_id, MOST_EVENTS) if with_events else []
        return tasks.row(conn, task_id), told

    row, told = await here.context.store.read(read)
    if row is None:
        refuse(404, f"there is no task {ids.shown(task_id)}")
    found = (await _with_reasons(here, [row]))[0]
    return {**found, "events": [asdict(event) for event in told]} if with_events else found


async def _with_reasons(here: Parts, rows: list[dict[str, object]]) -> list[dict[str, Any]]:
    pending = [str(row["id"]) for row in rows if row["status"] == TaskStatus.PENDING]
    found = await reasons(here.context, pending) if pending else {}
    return [{**views.row_shown(row), "reason": _reason(found.get(str(row["id"])))} for row in rows]


def _reason(reason: Reason | None) -> dict[str, Any] | None:
    if reason is None:
        return None
    return {"kind": reason.kind, "text": reason.text, "details": dict(reason.details)}
