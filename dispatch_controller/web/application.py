"""The application: blueprints, errors and headers, behind the door."""

from __future__ import annotations

from typing import Any, cast

import structlog
from quart import Response, request
from quart_schema import HttpSecurityScheme, Info, QuartSchema
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from dispatch_controller import __version__
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.factory import Factory
from dispatch_controller.loops.health_check import HealthCheck
from dispatch_controller.loops.operator import NotFound, NotPossible, Operator
from dispatch_controller.loops.recorder import Recorder
from dispatch_controller.loops.registrar import Registrar
from dispatch_controller.store.store import unusable
from dispatch_controller.store.writer import StoreClosed
from dispatch_controller.web import (
    api_fleet,
    api_streams,
    api_tasks,
    dashboard,
    factory,
    health,
    v1,
)
from dispatch_controller.web.answers import Problem, error_answer
from dispatch_controller.web.auth import Gate
from dispatch_controller.web.intake import BODY_LIMIT, Door
from dispatch_controller.web.live_logs import LiveLogs
from dispatch_controller.web.metrics import Metrics
from dispatch_controller.web.news import News
from dispatch_controller.web.parts import EXTENSION, Parts
from dispatch_controller.web.reading import require_json
from dispatch_controller.web.sessions import Sessions

log = structlog.get_logger(__name__)

BLUEPRINTS = (
    v1.blueprint,
    health.blueprint,
    api_tasks.blueprint,
    api_fleet.blueprint,
    api_streams.blueprint,
    factory.blueprint,
)


def build_application(
    context: Context,
    recorder: Recorder,
    registrar: Registrar,
    operator: Operator,
    health_check: HealthCheck,
    factory_loop: Factory | None = None,
) -> Door:
    """Return the application; `server.serve` serves it.

    `factory_loop` is the one whose loop runs; without one, a factory that only does as asked.
    """
    app = QuartTrio(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.extensions[EXTENSION] = Parts(
        context=context,
        recorder=recorder,
        registrar=registrar,
        operator=operator,
        health=health_check,
        news=News(context.store),
        logs=LiveLogs(operator),
        metrics=Metrics(context),
        factory=factory_loop or Factory(context, registrar),
    )
    _describe(app, bearer=not context.settings.loopback)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    sessions = Sessions(context.settings, context.clock.wall)
    dashboard.install(app, context, sessions)
    app.before_request(require_json)
    app.after_request(_guard_answer)
    app.register_error_handler(Problem, _problem)
    app.register_error_handler(NotFound, _not_found)
    app.register_error_handler(NotPossible, _not_possible)
    app.register_error_handler(StoreClosed, _stopping)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _mistake)
    return Door(cast(Any, app), Gate(context.settings, sessions))


def _describe(app: QuartTrio, *, bearer: bool) -> None:
    QuartSchema(
        app,
        openapi_path="/openapi.json",
        redoc_ui_path=None,
        scalar_ui_path=None,
        swagger_ui_path=None,
        info=Info(title="dispatch-controller", version=__version__),
        security_schemes={"bearer": HttpSecurityScheme(scheme="bearer")} if bearer else None,
        security=[{"bearer": []}] if bearer else None,
    )


async def _guard_answer(response: Response) -> Response:
    """Nothing of an answer is kept by a cache, guessed at, or shown inside another page."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("X-Frame-Options", "DENY")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    response.headers.setdefault(
        "Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"
    )
    return response


async def _problem(error: Problem) -> Response:
    return error_answer(request.path, error.status, error.message)


async def _not_found(error: NotFound) -> Response:
    return error_answer(request.path, 404, str(error))


async def _not_possible(error: NotPossible) -> Response:
    return error_answer(request.path, 409, str(error))


async def _stopping(error: StoreClosed) -> Response:
    return error_answer(request.path, 503, "the controller is stopping: ask again")


async def _http_error(error: HTTPException) -> Response:
    status = error.code or 500
    message = error.description or error.name
    if status == 404:
        message = "there is nothing at this path"
    elif status == 405:
        message = f"{request.method} is not possible here"
    response = error_answer(request.path, status, message)
    for name, value in error.get_headers():
        if name.lower() == "allow":
            response.headers[name] = value
    return response


async def _mistake(error: Exception) -> Response:
    why = unusable(error)
    if why is not None:  # a full disk, say; the guardian has it as an incident
        log.warning("request refused", method=request.method, path=request.path, error=why)
        return error_answer(request.path, 503, f"the database cannot be used now: {why}")
    log.error("request failed", method=request.method, path=request.path, exc_info=error)
    return error_answer(request.path, 500, "a mistake in this program: its log says more")
