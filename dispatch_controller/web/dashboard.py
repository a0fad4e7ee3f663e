"""The dashboard: pages rendered here, with a little script that keeps them true."""

from __future__ import annotations

from quart import Blueprint, Response, request
from quart_schema import hide
from quart_trio import QuartTrio

from dispatch_controller.loops.context import Context
from dispatch_controller.loops.operator import NotFound
from dispatch_controller.web import fleet_pages, login, reading, task_pages
from dispatch_controller.web.answers import Problem
from dispatch_controller.web.desk import desk, set_up, show
from dispatch_controller.web.parts import parts
from dispatch_controller.web.sessions import Sessions

blueprint = Blueprint("dashboard", __name__)

FOREVER = "public, max-age=31536000, immutable"


def install(app: QuartTrio, context: Context, sessions: Sessions) -> None:
    """Add the dashboard to the application."""
    set_up(app, context, sessions)
    app.register_blueprint(blueprint)
    app.register_blueprint(login.blueprint)


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
