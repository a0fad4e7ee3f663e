"""A bare HTTP client over one connection, for what a good client would never send or do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import trio


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes = b""

    def json(self) -> Any:  # noqa: ANN401
        return json.loads(self.body)


@dataclass
class Raw:
    """One connection."""

    stream: trio.SocketStream
    protocol: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))

    async def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Reply:
        """Send a request and read the whole reply."""
        await self.begin(method, target, **{"Content-Length": str(len(body)), **headers})
        await self.send(body)
        return await self.reply()

    async def begin(self, method: str, target: str, **headers: str) -> None:
        pairs = {"Host": "localhost", "Content-Type": "application/json", **headers}
        data = self.protocol.send(
            h11.Request(method=method, target=target, headers=list(pairs.items()))
        )
        assert data is not None
        await self.stream.send_all(data)

    async def send(self, body: bytes) -> None:
        """Send a whole body; a server that closes meanwhile may still have answered."""
        for event in (h11.Data(data=body), h11.EndOfMessage()):
            data = self.protocol.send(event)
            try:
                await self.stream.send_all(data or b"")
            except trio.BrokenResourceError:
                return

    async def reply(self, seconds: float = 10) -> Reply:
        head = await self.head(seconds)
        while (data := await self.data(seconds)) is not None:
            head.body += data
        return head

    async def head(self, seconds: float = 10) -> Reply:
        while True:
            event = await self._event(seconds)
            if isinstance(event, h11.Response):
                named = {k.decode().lower(): v.decode() for k, v in event.headers}
                return Reply(event.status_code, named)
            assert isinstance(event, h11.InformationalResponse), event

    async def data(self, seconds: float = 10) -> bytes | None:
        """Return more of the body, None at its end."""
        event = await self._event(seconds)
        if isinstance(event, h11.Data):
            return bytes(event.data)
        return None

    async def _event(self, seconds: float) -> Any:  # noqa: ANN401 - h11's events
        with trio.fail_after(seconds):
            while True:
                event = self.protocol.next_event()
                if event is not h11.NEED_DATA:
                    return event
                self.protocol.receive_data(await self.stream.receive_some())


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Raw]:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        yield Raw(stream)
