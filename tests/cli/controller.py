"""A small HTTP server that answers as the controller does, from canned rows."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

STATUS = {
    "status": "OK",
    "version": "0.1.0",
    "uptime": 3700.0,
    "tasks": {"pending": 1, "running": 2},
    "loops": {"reaper": {"cycle": 7, "last_ok": "now", "last_error": None, "restarts": 0}},
    "nodes": [{"name": "mini"}],
    "timestamp": "2026-01-01T00:00:00+00:00",
}
NODE = {
    "name": "mini",
    "ssh_host": None,
    "slots": 4,
    "api_mode": "direct",
    "work_dir": "~/dispatch",
    "running_count": 1,
    "last_seen": "2026-01-01T00:00:00+00:00",
    "enabled": 1,
    "executor": "shell",
    "priority": 2,
    "quarantined": False,
    "reachable": True,
    "claimed": 1,
    "running": 1,
    "free": 2,
    "last_error": None,
}


def row(task: str, status: str = "pending", **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a task as the API gives it."""
    return {
        "id": task,
        "project": "shop",
        "spec_file": f"/specs/shop/{task}.md",
        "status": status,
        "node": None,
        "attempt": 0,
        "priority": 2,
        "depends_on": [],
        "modifies": ["a.py"],
        "duration_seconds": None,
        "error": None,
        **more,
    }


class NotFound(Exception):
    """Becomes 404 with a code and a message."""


class Conflict(Exception):
    """Becomes 409."""


@dataclass
class FakeController:
    """Rows to answer from, and what was asked (`requests`: method, path, body)."""

    tasks: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    log: str = ""
    alive: bool = False
    token: str | None = None
    registration: dict[str, Any] = field(default_factory=dict)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    before_page: Callable[[], None] = lambda: None
    before_log: Callable[[], None] = lambda: None
    after_cancel: Callable[[str], str] = lambda task: "deadletter"
    url: str = ""

    def answer(self, method: str, target: str, body: Any) -> Any:  # noqa: ANN401
        """Return `data` of the answer."""
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        match [method, *map(unquote, parts.path.removeprefix("/api/v1/").split("/"))]:
            case ["GET", "tasks"]:
                self.before_page()
                return self._page(query)
            case ["GET", "tasks", task]:
                return {**self._task(task), "events": self.events}
            case ["GET", "tasks", task, "log"]:
                self._task(task)
                self.before_log()
                offset, limit = int(query["offset"]), int(query["limit"])
                text = self.log.encode()[offset : offset + limit].decode()
                size = len(self.log.encode())
                return {"offset": offset, "size": size, "text": text, "alive": self.alive}
            case ["POST", "tasks", task, verb]:
                if self._task(task)["status"] == "completed":
                    raise Conflict(f"task {task} is completed: it cannot be changed")
                status = "pending" if verb == "retry" else self.after_cancel(task)
                return {**self._task(task), "status": status}
            case ["GET", "nodes"]:
                return [NODE]
            case ["POST", "nodes", "mini", verb]:
                return {**NODE, "enabled": int(verb == "enable")}
            case ["POST", "register"]:
                return self.registration
        raise NotFound(f"nothing at {target}")

    def _task(self, task: str) -> dict[str, Any]:
        for found in self.tasks:
            if found["id"] == task:
                return found
        raise NotFound(f"no task {task}")

    def _page(self, query: dict[str, str]) -> dict[str, Any]:
        rows = [
            task
            for task in self.tasks
            if all(task[key] == query.get(key, task[key]) for key in ("status", "project", "node"))
        ]
        offset = int(query["offset"])
        return {"tasks": rows[offset : offset + int(query["limit"])], "total": len(rows)}


class Server(ThreadingHTTPServer):
    """Serves `controller` on a free port of this machine."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, controller: FakeController) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.controller = controller
        controller.url = f"http://127.0.0.1:{self.server_port}"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def stop(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle(None)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/json"
        self._handle(json.loads(content))

    def _handle(self, body: object) -> None:
        controller = self.server.controller
        controller.requests.append((self.command, self.path, body))
        if controller.token and self.headers["Authorization"] != f"Bearer {controller.token}":
            return self._send(401, {"ok": False, "error": {"code": "token", "message": "token"}})
        if self.path == "/v1/status":
            return self._send(200, STATUS)
        try:
            data = controller.answer(self.command, self.path, body)
        except NotFound as error:
            failed = {"ok": False, "error": {"code": "not_found", "message": str(error)}}
            return self._send(404, failed)
        except Conflict as error:
            failed = {"ok": False, "error": {"code": "conflict", "message": str(error)}}
            return self._send(409, failed)
        return self._send(200, {"ok": True, "data": data})

    def _send(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
