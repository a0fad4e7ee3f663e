"""Logging in and out: a browser trades the token for a session."""

from __future__ import annotations

from pydantic import Field
from quart import Blueprint, Response, request
from quart_schema import hide

from dispatch_controller.web import reading
from dispatch_controller.web.answers import ok, refuse
from dispatch_controller.web.desk import desk, show
from dispatch_controller.web.types import Line, Question

blueprint = Blueprint("login", __name__)


class Entrance(Question):
    token: str = Field(max_length=4096)


class Next(Question):
    next: Line | None = None


@blueprint.get("/login")
@hide
async def log_in_page() -> Response:
    onward = _inside(reading.query(Next).next)
    sessions = desk().sessions
    if not desk().can_log_out or sessions.valid(request.headers.get("Cookie", "")):
        return Response(b"", 303, {"Location": onward})
    return await show("login.html", "", {"next": onward})


@blueprint.post("/login")
@hide
async def log_in() -> Response:
    given = await reading.body(Entrance)
    if not desk().sessions.is_token(given.token.strip()):
        refuse(401, "That is not this controller's token.")
    answer = ok({})
    answer.headers["Set-Cookie"] = desk().sessions.open()
    return answer


@blueprint.post("/logout")
@hide
async def log_out() -> Response:
    answer = ok({})
    answer.headers["Set-Cookie"] = desk().sessions.end(request.headers.get("Cookie", ""))
    return answer


def _inside(address: str | None) -> str:
    """Return where to go on: a path of this controller, never another site."""
    if address is None or not address.startswith("/") or address[1:2] in ("/", "\\"):
        return "/"
    return address if address.isprintable() and address.isascii() else "/"
