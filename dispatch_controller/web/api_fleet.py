"""/api/v1: nodes, projects, registration, events, status, log level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quart import Blueprint, Response
from quart_schema import tag_blueprint

from dispatch_controller.core import ids
from dispatch_controller.logs import set_level
from dispatch_controller.loops.context import Context
from dispatch_controller.store import events, tasks, views
from dispatch_controller.web import reading
from dispatch_controller.web.answers import ok, refuse
from dispatch_controller.web.documented import changes, reads
from dispatch_controller.web.node_rows import node_rows
from dispatch_controller.web.parts import Parts, parts
from dispatch_controller.web.status import status_body
from dispatch_controller.web.types import (
    EventPage,
    EventQuery,
    LogLevel,
    NodeRow,
    Nothing,
    ProjectRow,
    RegisterRequest,
    Registration,
)
from dispatch_controller.web.worker_messages import StatusBody

blueprint = Blueprint("api_fleet", __name__, url_prefix="/api/v1")
tag_blueprint(blueprint, ["fleet"])


@blueprint.get("/status")
@reads(StatusBody)
async def status() -> Response:
    """Tell how the controller, its loops and its nodes are: the body of /v1/status."""
    return ok(await status_body(parts()))


@blueprint.post("/log-level")
@changes(LogLevel, LogLevel)
async def log_level() -> Response:
    """Log from this level on, at once, until the controller ends."""
    asked = await reading.body(LogLevel)
    set_level(asked.level)
    return ok({"level": asked.level})


@blueprint.get("/nodes")
@reads(list[NodeRow])
async def list_nodes() -> Response:
    """List nodes by name, with their slots and health."""
    here = parts()
    return ok(await node_rows(here.context, here.now))


@blueprint.post("/nodes/<name>/enable")
@changes(NodeRow, Nothing, 404)
async def enable_node(name: str) -> Response:
    """Let a node take tasks again."""
    here = parts()
    await here.operator.set_enabled(reading.node_name(name), True)
    return ok(await _node(here, name))


@blueprint.post("/nodes/<name>/disable")
@changes(NodeRow, Nothing, 404)
async def disable_node(name: str) -> Response:
    """Give a node no more tasks; what runs there goes on."""
    here = parts()
    await here.operator.set_enabled(reading.node_name(name), False)
    return ok(await _node(here, name))


@blueprint.post("/nodes/<name>/lift_quarantine")
@changes(NodeRow, Nothing, 404, 409)
async def lift_quarantine(name: str) -> Response:
    """Take a node out of quarantine."""
    here = parts()
    await here.operator.lift_quarantine(reading.node_name(name))
    return ok(await _node(here, name))


async def _node(here: Parts, name: str) -> dict[str, Any]:
    rows = {row["name"]: row for row in await node_rows(here.context, here.now)}
    if name not in rows:
        refuse(404, f"there is no node {ids.shown(name)}")
    return rows[name]


@blueprint.get("/projects")
@reads(list[ProjectRow])
async def list_projects() -> Response:
    """List projects by name: those of projects.json, and those that have tasks."""
    context = parts().context
    counted = {
        str(row["project"]): row["tasks"] for row in await context.store.read(tasks.projects)
    }
    names = sorted(counted.keys() | context.knowledge.projects.keys())
    return ok([_project(context, name, counted.get(name, {})) for name in names])


@blueprint.get("/projects/<name>")
@reads(ProjectRow, 404)
async def show_project(name: str) -> Response:
    """Show a project and how many of its tasks are in each state."""
    context = parts().context
    counts = await context.store.read(views.project_counts, reading.project_name(name))
    if not any(counts.values()) and name not in context.knowledge.projects:
        refuse(404, f"there is no project {name}")
    return ok(_project(context, name, counts))


def _project(context: Context, name: str, counts: object) -> dict[str, Any]:
    entry = context.knowledge.project(name)
    return {
        "project": name,
        "tasks": counts,
        "paused": entry.paused,
        "sync_mode": entry.sync_mode,
    }


@blueprint.post("/register")
@changes(Registration, RegisterRequest)
async def register() -> Response:
    """Register spec files; those with errors are told, the others become tasks all the same."""
    asked = await reading.body(RegisterRequest)
    here = parts()
    paths = [Path(path) for path in asked.paths]
    relative = [str(path) for path in paths if not path.is_absolute()]
    if relative:
        refuse(422, f"paths: {ids.shown(relative[0])} is not absolute")
    missing = await here.context.run_sync(_missing, paths)
    result = await here.registrar.register(paths, asked.project)
    return ok({**result, "errors": [*missing, *result["errors"]]})


def _missing(paths: Sequence[Path]) -> list[dict[str, object]]:
    missing = [path for path in paths if not _there(path)]
    return [{"file": str(p), "line": 1, "reason": "there is no such file"} for p in missing]


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True  # registration says what is wrong with it


@blueprint.get("/events")
@reads(EventPage, query=EventQuery)
async def list_events() -> Response:
    """List events, newest first."""
    asked = reading.query(EventQuery)
    found = await parts().context.store.read(events.page, asked.before, asked.limit)
    more = found[-1].id if len(found) == asked.limit else None
    return ok({"events": [asdict(event) for event in found], "next": more})
