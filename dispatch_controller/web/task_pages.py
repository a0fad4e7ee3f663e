"""What the pages of tasks show: the table with its filters, and one task."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode

from pydantic import Field

from dispatch_controller.core import ids
from dispatch_controller.core.placement import Reason
from dispatch_controller.core.times import parse_iso
from dispatch_controller.loops.conditions import reasons
from dispatch_controller.model import TaskStatus
from dispatch_controller.store import endings, events, pages, tasks, views
from dispatch_controller.store.events import Event
from dispatch_controller.store.pages import GraphTask
from dispatch_controller.store.tasks import Filter
from dispatch_controller.store.writer import Connection
from dispatch_controller.web.answers import refuse
from dispatch_controller.web.attempts import attempts
from dispatch_controller.web.parts import Parts
from dispatch_controller.web.types import Line, Question

PER_PAGE = 50
MOST_EVENTS = 200
MOST_DEPENDENTS = 50


class TableQuery(Question):
    status: TaskStatus | None = None
    project: Line | None = None
    node: Line | None = None
    q: Line | None = None
    sort: Literal["id", "changed"] = "id"
    page: int = Field(1, ge=1, le=1_000_000)


async def table(here: Parts, asked: TableQuery) -> dict[str, Any]:
    """Return a page of the table of tasks, pending ones with their reasons."""
    where = Filter(asked.status, asked.project, asked.node, asked.q)
    lines, total = await here.context.store.read(
        pages.task_lines, where, PER_PAGE, (asked.page - 1) * PER_PAGE,
        changed_first=asked.sort == "changed",
    )  # fmt: skip
    pending = [line.id for line in lines if line.status == TaskStatus.PENDING]
    found = await reasons(here.context, pending) if pending else {}
    last = max(1, -(-total // PER_PAGE))
    return {
        "lines": lines,
        "total": total,
        "reasons": found,
        "asked": asked,
        "filtered": bool(asked.status or asked.project or asked.node or asked.q),
        "first": (asked.page - 1) * PER_PAGE + 1,
        "last_page": last,
        "link": _linker(asked),
    }


def _linker(asked: TableQuery) -> Any:  # noqa: ANN401 - a function for the template
    """Return a function that gives the address of this table with some of its terms changed."""
    given = {
        "status": asked.status.value if asked.status else None,
        "project": asked.project, "node": asked.node, "q": asked.q,
        "sort": None if asked.sort == "id" else asked.sort,
        "page": None if asked.page == 1 else asked.page,
    }  # fmt: skip

    def link(**changed: object) -> str:
        terms = {**given, "page": None, **changed}
        query = urlencode({name: value for name, value in terms.items() if value is not None})
        return f"/tasks?{query}" if query else "/tasks"

    return link


@dataclass(frozen=True, slots=True)
class EventLine:
    """An event as the page shows it."""

    id: int
    at: float | None
    event_type: str
    node: str | None
    details: tuple[tuple[str, str], ...]


async def task(here: Parts, task_id: str) -> dict[str, Any]:
    """Return one task with its attempts, gates and events. Raises Problem (404)."""

    def read(conn: Connection) -> tuple[
        dict[str, object] | None, list[Event], dict[str, TaskStatus], list[GraphTask]
    ]:  # fmt: skip
        row = tasks.row(conn, task_id)
        if row is None:
            return None, [], {}, []
        parents = tasks.statuses(conn, list(tasks.strings(row["depends_on"]) or ()))
        children = pages.dependents(conn, str(row["project"]), task_id, MOST_DEPENDENTS)
        return row, events.of_task(conn, task_id, MOST_EVENTS), parents, children

    row, told, parents, children = await here.context.store.read(read)
    if row is None:
        refuse(404, f"there is no task {ids.shown(task_id)}")
    shown = views.row_shown(row)
    reason: Reason | None = None
    if row["status"] == TaskStatus.PENDING:
        reason = (await reasons(here.context, [task_id])).get(task_id)
    seen = here.context.knowledge.seen.get(str(row["lease_owner"]))
    return {
        "task": shown,
        "times": {
            name: parse_iso(row[name])
            for name in ("started_at", "completed_at", "collected_at", "heartbeat_at")
        },
        "reason": reason,
        "waiting_input": seen is not None and seen.waiting_input,
        "attempts": attempts(told),
        "events": [event_line(event) for event in reversed(told)],
        "parents": {
            parent: parents[parent].value if parent in parents else None
            for parent in tasks.strings(row["depends_on"]) or ()
        },
        "children": children,
        "can_retry": row["status"] in (TaskStatus.FAILED, TaskStatus.DEADLETTER),
        "can_cancel": row["status"] not in (TaskStatus.COMPLETED, TaskStatus.DEADLETTER),
        "ending": _ending(told, row["lease_owner"]),
        "held": row["status"] in (TaskStatus.CLAIMED, TaskStatus.RUNNING),
    }


def _ending(told: list[Event], lease: object) -> str | None:
    """Return why the process of this lease is being ended, if it is."""
    wishes = [event for event in told if event.event_type == endings.EVENT]
    if not wishes or wishes[-1].details.get("lease") != lease:
        return None
    return str(wishes[-1].details.get("why") or "the controller wishes it")


def event_line(event: Event) -> EventLine:
    """Return an event with its details as text; what says nothing is left out."""
    details = tuple(
        (str(name), value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in event.details.items()
        if value not in (None, "", [], {})
    )
    return EventLine(event.id, parse_iso(event.timestamp), event.event_type, event.node, details)
