"""The application of a worker that listens, behind the same door as the controller's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, cast

import structlog
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from dispatch_controller.settings import Settings
from dispatch_controller.web.answers import Problem, answer, error_answer, refuse
from dispatch_controller.web.auth import Gate
from dispatch_controller.web.intake import BODY_LIMIT, Door
from dispatch_controller.web.reading import parse_json, require_json

log = structlog.get_logger(__name__)

Answerer = Callable[[str, Mapping[str, Any]], Awaitable[tuple[int, Mapping[str, Any]]]]
POSTS, GETS = ("execute", "kill", "void"), ("status", "health", "metrics", "log")


def build_worker_application(answerer: Answerer, settings: Settings) -> Door:
    """Return the application; `answerer` gets the name of the call and its body or query."""
    app = QuartTrio(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT
    for call in POSTS:
        app.add_url_rule(f"/v1/{call}", call, partial(_post, answerer, call), methods=["POST"])
    for call in GETS:
        app.add_url_rule(f"/v1/{call}", call, partial(_get, answerer, call), methods=["GET"])
    app.before_request(require_json)
    app.register_error_handler(Problem, _problem)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _mistake)
    return Door(cast(Any, app), Gate(settings))


async def _post(answerer: Answerer, call: str) -> Response:
    body = parse_json(cast(bytes, await request.get_data(as_text=False)))
    if not isinstance(body, dict):
        refuse(400, "the body is no JSON object")
    status, said = await answerer(call, body)
    return answer(said, status)


async def _get(answerer: Answerer, call: str) -> Response:
    status, said = await answerer(call, request.args.to_dict())
    return answer(said, status)


async def _problem(error: Problem) -> Response:
    return error_answer(request.path, error.status, error.message)


async def _http_error(error: HTTPException) -> Response:
    return error_answer(request.path, error.code or 500, error.description or error.name)


async def _mistake(error: Exception) -> Response:
    log.error("request failed", method=request.method, path=request.path, exc_info=error)
    return error_answer(request.path, 500, "a mistake in this program: its log says more")
