"""One life of a `serve` channel: requests paired with their replies, and what it tells unasked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import structlog
import trio

from dispatch_controller.fleet.deploy import decode
from dispatch_controller.fleet.transport import LineChannel, TransportLost

log = structlog.get_logger(__name__)

PING_SECONDS = 30.0
"""`serve` ends after 90 s without a line."""
PING_TIMEOUT = 15.0


class _Pending:
    def __init__(self) -> None:
        self.done = trio.Event()
        self.reply: dict[str, Any] | None = None


class Conversation:
    """Talks over `channel` until it ends; `on_event` gets every event, on Trio's thread."""

    def __init__(
        self, node: str, channel: LineChannel, on_event: Callable[[dict[str, Any]], None]
    ) -> None:
        self.node = node
        self.lost: TransportLost | None = None
        """Why it ended."""
        self._channel = channel
        self._on_event = on_event
        self._ids = count(1)
        self._pending: dict[int, _Pending] = {}
        self._queue, self._queued = trio.open_memory_channel[tuple[int, bytes]](math.inf)
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Talk until the channel ends, `end` is called or this task is cancelled."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for part in (self._read, self._write, self._ping):
                        nursery.start_soon(self._until_lost, part)
        finally:
            self.end(TransportLost(self.node, "the conversation was ended"))

    def end(self, lost: TransportLost) -> None:
        """Answer every open request with `lost` and stop."""
        if self.lost is None:
            self.lost = lost
        for pending in self._pending.values():
            pending.done.set()
        self._scope.cancel()

    async def ask(self, op: str, fields: Mapping[str, object]) -> dict[str, Any]:
        """Send a request and return its result. Requests do not wait for each other.

        Raises TransportLost when the conversation ends or the node answers with an error. A
        caller that gives up takes back what is not sent yet.
        """
        if self.lost is not None:
            raise self.lost.again()
        number, pending = next(self._ids), _Pending()
        line = json.dumps({"id": number, "op": op, **fields}, separators=(",", ":")).encode()
        self._pending[number] = pending
        try:
            self._queue.send_nowait((number, line))
            await pending.done.wait()
        finally:
            del self._pending[number]
        return self._result(op, pending.reply)

    def _result(self, op: str, reply: dict[str, Any] | None) -> dict[str, Any]:
        if reply is None:
            lost = self.lost or TransportLost(self.node, "the conversation was ended")
            raise lost.again()
        result = reply.get("result")
        if reply.get("ok") is True and isinstance(result, dict):
            return result
        error = reply.get("error")
        words = error if isinstance(error, dict) else {}
        text = words.get("message") or words.get("code") or "an answer that cannot be read"
        raise TransportLost(self.node, f"{op}: {text}")

    async def _until_lost(self, part: Callable[[], Any]) -> None:
        try:
            await part()
        except TransportLost as lost:
            self.end(lost)

    async def _read(self) -> None:
        while True:
            line = await self._channel.receive()
            message = decode(line)
            if message is None:
                log.debug("not a line of serve", node=self.node, line=line[:200])
            elif "event" in message:
                self._on_event(message)
            else:
                number = message.get("id")
                pending = self._pending.get(number) if isinstance(number, int) else None
                if pending is not None:
                    pending.reply = message
                    pending.done.set()

    async def _write(self) -> None:
        async for number, line in self._queued:
            if number in self._pending:
                await self._channel.send(line)

    async def _ping(self) -> None:
        while True:
            await trio.sleep(PING_SECONDS)
            with trio.move_on_after(PING_TIMEOUT) as scope:
                await self.ask("ping", {})
            if scope.cancelled_caught:
                raise TransportLost(self.node, f"serve did not answer a ping in {PING_TIMEOUT:g} s")
