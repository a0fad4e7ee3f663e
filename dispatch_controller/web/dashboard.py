"""The dashboard: pages rendered here, with a little script that keeps them true."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from quart import Blueprint, Response, current_app, request
from quart_schema import hide
from quart_trio import QuartTrio

from dispatch_controller.loops.context import Context
from dispatch_controller.loops.operator import NotFound
from dispatch_controller.web import fleet_pages, reading, task_pages
from dispatch_controller.web.answers import Problem
from dispatch_controller.web.overview import Overview
from dispatch_controller.web.parts import parts
from dispatch_controller.web.project_pages import Projects
from dispatch_controller.web.rendering import Pages

blueprint = Blueprint("dashboard", __name__)

EXTENSION = "dispatch_controller.dashboard"
FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Desk:
    """What the pages keep between requests."""

    pages: Pages
    overview: Overview
    projects: Projects


def install(app: QuartTrio, context: Context) -> None:
    """Add the dashboard to the application."""
    app.extensions[EXTENSION] = Desk(
        pages=Pages(context.run_sync, can_log_out=not context.settings.loopback),
        overview=Overview(context),
        projects=Projects(context),
    )
    app.register_blueprint(blueprint)


def desk() -> Desk:
    """Return the desk of the application that handles the current request."""
    return cast(Desk, current_app.extensions[EXTENSION])


async def show(template: str, at: str, values: dict[str, Any], status: int = 200) -> Response:
    """Return a page; `at` is its entry in the navigation."""
    return await desk().pages.page(template, {"now": parts().now, "at": at, **values}, status)


@blueprint.get("/")
@hide
async def overview() -> Response:
    return await show("overview.html", "overview", await desk().overview.values(parts()))


@blueprint.get("/tasks")
@hide
async def tasks() -> Response:
    counts = await desk().overview.counts()
    values = await task_pages.table(parts(), reading.query(task_pages.TableQuery))
    return await show("tasks.html", "tasks", {**values, "counts": counts})


@blueprint.get("/tasks/<task_id>")
@hide
async def task(task_id: str) -> Response:
    values = await task_pages.task(parts(), reading.task_id(task_id))
    return await show("task.html", "tasks", values)


@blueprint.get("/projects")
@hide
async def projects() -> Response:
    return await show("projects.html", "projects", await desk().projects.listed())


@blueprint.get("/projects/<name>")
@hide
async def project(name: str) -> Response:
    values = await desk().projects.one(reading.project_name(name))
    return await show("project.html", "projects", values)


@blueprint.get("/nodes")
@hide
async def nodes() -> Response:
    return await show("nodes.html", "nodes", await fleet_pages.nodes(parts()))


@blueprint.get("/fleet-health")
@hide
async def fleet_health() -> Response:
    return await show("health.html", "health", await fleet_pages.condition(parts()))


@blueprint.get("/static/<name>")
@hide
async def static(name: str) -> Response:
    asset = desk().pages.assets.get(name)
    if asset is None:
        raise Problem(404, "there is no such file")
    response = Response(asset.content, content_type=asset.content_type)
    if request.args.get("v") == asset.digest:
        response.headers["Cache-Control"] = FOREVER
    return response


@blueprint.errorhandler(Problem)
async def _problem(error: Problem) -> Response:
    return await show(
        "problem.html", "", {"status": error.status, "message": error.message}, error.status
    )


@blueprint.errorhandler(NotFound)
async def _not_found(error: NotFound) -> Response:
    return await show("problem.html", "", {"status": 404, "message": str(error)}, 404)
