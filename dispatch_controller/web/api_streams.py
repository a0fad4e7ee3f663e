"""/api/v1: what happens as it happens, and logs as they grow."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import asdict

from quart import Blueprint, Response
from quart_schema import hide

from dispatch_controller.loops.operator import NotFound, NotPossible
from dispatch_controller.store.events import Event
from dispatch_controller.web import reading
from dispatch_controller.web.live_logs import end_of
from dispatch_controller.web.parts import Parts, parts
from dispatch_controller.web.sse import (
    KEEPALIVE,
    OPENING,
    QUIET,
    last_event_id,
    message,
    stream,
    until,
)
from dispatch_controller.web.types import FollowQuery

blueprint = Blueprint("api_streams", __name__, url_prefix="/api/v1")

MOST_MISSED = 10_000
"""Events that are sent again to a client that comes back; one that missed more starts anew."""


@blueprint.get("/stream")
@hide
async def events_stream() -> Response:
    """Send every event of a task or node; `id` is that of the table events."""
    here = parts()
    newest = await here.news.newest()
    last = last_event_id()
    missed_too_much = last is not None and not 0 <= newest - last <= MOST_MISSED
    if last is None or missed_too_much:
        last = newest
    return stream(_events(here, last, missed_too_much))


async def _events(here: Parts, last: int, reset: bool) -> AsyncGenerator[bytes, None]:
    stop = here.context.stop
    yield OPENING
    if reset:
        yield message("reset", {"why": "too much was missed: read everything anew"}, last)
    while not stop.is_set():
        found = await until(stop, here.news.after, last, seconds=QUIET)
        if found:
            last = found[-1].id
            yield b"".join(message(_kind(event), asdict(event), event.id) for event in found)
        elif not stop.is_set():
            yield KEEPALIVE


def _kind(event: Event) -> str:
    if event.task_id is not None:
        return "task"
    return "node" if event.node is not None else "controller"


@blueprint.get("/tasks/<task_id>/log/stream")
@hide
async def log_stream(task_id: str) -> Response:
    """Send a task's log as it grows, until its process has ended; `id` is the next offset."""
    here = parts()
    offset = last_event_id()
    if offset is None:
        offset = reading.query(FollowQuery).offset
    await here.operator.read_log(reading.task_id(task_id), offset, 1)  # what fails, fails now
    return stream(_log(here, task_id, offset))


async def _log(here: Parts, task_id: str, offset: int) -> AsyncGenerator[bytes, None]:
    stop = here.context.stop
    yield OPENING
    with here.logs.watch(task_id) as tail:
        while not stop.is_set():
            try:
                piece = await until(stop, here.logs.after, tail, task_id, offset, seconds=QUIET)
            except (NotFound, NotPossible) as error:
                yield message("unavailable", {"why": str(error)})
                return
            if piece is None:
                yield KEEPALIVE
            elif piece.size < offset:
                offset = 0
                yield message("restart", {"why": "a new attempt runs"}, 0)
            elif piece.text:
                offset = end_of(piece)
                yield message("log", asdict(piece), offset)
            elif not piece.alive:
                yield message("end", {"size": piece.size}, offset)
                return
