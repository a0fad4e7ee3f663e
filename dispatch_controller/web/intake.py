"""What every request passes before the application sees it: the gate, then its whole body.

The body is read here, in time and within its limit, so that a slow or endless one ties up neither
a handler nor memory. What was taken in runs to its end even if its client hangs up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlencode

import trio

from dispatch_controller.web.answers import error_body
from dispatch_controller.web.auth import ENTRANCE, Caller, Gate, Refusal

BODY_LIMIT = 1024 * 1024
BODY_SECONDS = 20.0
"""For the whole body."""
DISCARDED = 16 * 1024 * 1024
"""Bytes of a body too large that are read all the same, so that its sender hears the answer: a
connection closed on unread data is reset, and the answer lost."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_SPOKEN = ("1.0", "1.1")

CALLER = "dispatch.caller"
"""Key of the `Caller` in the request's scope."""


class _Gone(Exception):
    """The client hung up."""


class Door:
    """An ASGI application around another one."""

    def __init__(self, inside: Application, gate: Gate) -> None:
        self._inside = inside
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["http_version"] not in _SPOKEN:
            await _decline_version(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._inside(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        address = (scope["client"] or ("",))[0]
        admitted = self._gate.admit(method, path, scope["scheme"], scope["headers"], address)
        try:
            body = await _read_body(receive, keep=isinstance(admitted, Caller))
        except _Gone:
            return
        if isinstance(admitted, Caller):
            refused = body if isinstance(body, Refusal) else None
        else:
            refused = admitted
        if refused is not None or isinstance(body, Refusal):
            location = _entrance(scope) if refused is not None and refused.status == 401 else None
            await _refuse(refused or body, path, receive, send, location)  # type: ignore[arg-type]
            return
        scope[CALLER] = admitted
        exchange = _Exchange(body, receive, send)
        await self._inside(scope, exchange.receive, exchange.send)
        await exchange.finish()


class _Exchange:
    """Gives the body again, then, to an open stream, the news that its client hung up.

    Nothing else hears of that, so that every answer is sent to its end: hypercorn arms the
    keep-alive time-out, and goes on with what a client sent ahead, only after a whole answer.
    """

    def __init__(self, body: bytes, further: Receive, send: Send) -> None:
        self._body: bytes | None = body
        self._further = further
        self._send = send
        self._streams = False

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self._further()
        if not self._streams:
            await trio.sleep_forever()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            named = {bytes(name).lower() for name, _ in message.get("headers", ())}
            self._streams = b"content-length" not in named
        elif not message.get("more_body", False):
            self._streams = False
        await self._send(message)

    async def finish(self) -> None:
        """End a stream that its client left."""
        if self._streams:
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})


async def _read_body(receive: Receive, *, keep: bool) -> bytes | Refusal:
    """Return the body, or why not; only its size counts where it is not kept. Raises _Gone."""
    parts: list[bytes] = []
    size = 0
    with trio.move_on_after(BODY_SECONDS):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > BODY_LIMIT:
                parts.clear()
            elif keep:
                parts.append(chunk)
            if not message.get("more_body", False) or size > DISCARDED:
                break
        if size > BODY_LIMIT:
            return Refusal(413, f"the body is larger than {BODY_LIMIT} bytes")
        return b"".join(parts)
    return Refusal(408, f"the body did not arrive within {BODY_SECONDS:.0f} s")


def _entrance(scope: Scope) -> bytes | None:
    """Return where a browser that asks for a page can log in; None for all others."""
    headers = dict(scope["headers"])
    wants_page = b"text/html" in headers.get(b"accept", b"") and b"authorization" not in headers
    if scope["method"] != "GET" or not wants_page:
        return None
    asked = scope["path"] + ("?" + scope["query_string"].decode("latin-1")).rstrip("?")
    return f"{ENTRANCE}?{urlencode({'next': asked})}".encode("ascii")


async def _refuse(
    refusal: Refusal, path: str, receive: Receive, send: Send, location: bytes | None
) -> None:
    """Answer, reading on meanwhile: the server stops at a body that nobody takes."""
    body = error_body(path, refusal.status, refusal.message)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    status = refusal.status
    if location is not None:
        status = 303
        headers.append((b"location", location))
    elif status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_discard, receive, name="discard")
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
        nursery.cancel_scope.cancel()


async def _decline_version(receive: Receive, send: Send) -> None:
    """Answer HTTP/2, to which no setting keeps hypercorn from being upgraded, without a body.

    With one, a client that grants no flow control could hold the answer back for ever.
    """
    async with trio.open_nursery() as nursery:

        async def leave() -> None:
            await _discard(receive)
            nursery.cancel_scope.cancel()

        nursery.start_soon(leave, name="hang-up")
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 505, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        nursery.cancel_scope.cancel()


async def _discard(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
