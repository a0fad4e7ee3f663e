"""Server-sent events: streams that end with the controller, and can be taken up again by id."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio
from quart import Response, request

from dispatch_controller.web.answers import dump, refuse

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

QUIET = 15.0
"""Seconds of silence after which a comment is sent, so that a dead connection is noticed."""
RETRY = 1000
"""Milliseconds after which a client that lost the stream comes back."""

OPENING = f"retry: {RETRY}\n: open\n\n".encode()
KEEPALIVE = b": quiet\n\n"


def message(event: str, data: object, id_: int | None = None) -> bytes:
    """Return one event; its data is JSON on one line."""
    head = b"" if id_ is None else b"id: %d\n" % id_
    return b"%sevent: %s\ndata: %s\n\n" % (head, event.encode("ascii"), dump(data))


def stream(pieces: AsyncGenerator[bytes, None]) -> Response:
    response = Response(pieces, content_type="text/event-stream")
    response.timeout = None
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def last_event_id() -> int | None:
    """Return where the client left off. Raises Problem (422)."""
    given = request.headers.get("Last-Event-ID", "")
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        refuse(422, "Last-Event-ID: write the id of an event of this stream")
    return int(given)


async def until(
    stop: trio.Event, fn: Callable[[*Ts], Awaitable[T]], *args: *Ts, seconds: float
) -> T | None:
    """Return `await fn(*args)`; None when `stop` is set or the time is over before."""
    result: T | None = None
    failure: Exception | None = None

    async def watch(scope: trio.CancelScope) -> None:
        await stop.wait()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, nursery.cancel_scope, name="stream stop")
        with trio.move_on_after(seconds):
            try:
                result = await fn(*args)
            except Exception as error:  # noqa: BLE001 - raised below, outside of the nursery
                failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return result
