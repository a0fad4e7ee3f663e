"""A worker as they are in the field: written from nodes.md and http.md alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h11
import trio

Handler = Callable[[dict[str, Any]], tuple[int, object]]


@dataclass
class OldWorker:
    """Takes tasks in threads of its own, as it were: `running` is what it runs.

    A test may have a call answered otherwise (`answers`), or never (`silent`).
    """

    url: str = ""
    slots: int = 2
    running: dict[str, str] = field(default_factory=dict)
    """Task → lease."""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    """Of the last request."""
    answers: dict[str, tuple[int, object]] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)

    def called(self, name: str) -> list[dict[str, Any]]:
        return [body for call, body in self.calls if call == name]

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, object]:
        known = {
            ("POST", "execute"): self.execute, ("POST", "kill"): self.kill,
            ("GET", "status"): self.status, ("GET", "health"): self.health,
            ("GET", "metrics"): self.metrics,
        }  # fmt: skip
        handler = known.get((method, path))
        if path in self.answers:
            return self.answers[path]
        return (404, {"error": "not found"}) if handler is None else handler(body)

    def execute(self, body: dict[str, Any]) -> tuple[int, object]:
        if not isinstance(body.get("command"), str):
            return 400, {"error": "no command"}
        if len(self.running) >= self.slots:
            return 429, {"error": "no slot"}
        self.running[body["task_id"]] = body["lease_owner"]
        return 200, {"status": "ACCEPTED", "task_id": body["task_id"]}

    def kill(self, body: dict[str, Any]) -> tuple[int, object]:
        self.running.pop(body["task_id"], None)
        return 200, {"status": "OK"}

    def status(self, body: dict[str, Any]) -> tuple[int, object]:
        tasks = [{"task_id": task, "lease_owner": lease} for task, lease in self.running.items()]
        return 200, {"status": "OK", "running_tasks": tasks}

    def health(self, body: dict[str, Any]) -> tuple[int, object]:
        return 200, {"status": "healthy"}

    def metrics(self, body: dict[str, Any]) -> tuple[int, object]:
        return 200, "worker_cpu 12.5\n"  # no JSON: Prometheus' own text

    # --- the server

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[OldWorker]:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(
                partial(trio.serve_tcp, self._connection, 0, host="127.0.0.1")
            )
            self.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
            yield self
            nursery.cancel_scope.cancel()

    async def _connection(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        content = bytearray()
        request: h11.Request | None = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some()))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                content += event.data
            else:
                break
        if request is None:
            return
        self.headers = {name.decode(): value.decode() for name, value in request.headers}
        path = request.target.decode().split("?")[0].removeprefix("/v1/")
        body = json.loads(content) if content else {}
        self.calls.append((path, body))
        if path in self.silent:
            await trio.sleep_forever()
        status, said = self.answer(request.method.decode(), path, body)
        data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        head = [("Content-Length", str(len(data))), ("Connection", "close")]
        if status in (301, 307):
            head.append(("Location", "http://127.0.0.1:1/elsewhere"))
        answer = h11.Response(status_code=status, headers=head)
        try:
            for part in (answer, h11.Data(data=data), h11.EndOfMessage()):
                await stream.send_all(connection.send(part) or b"")
        except trio.BrokenResourceError:
            pass  # who asked has heard enough
