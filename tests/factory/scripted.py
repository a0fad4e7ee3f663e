"""An HTTP server on loopback that answers as it is told, one answer after the other."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    """Bytes after which the connection is closed, although more was announced."""
    hang: bool = False
    """Send what there is, then nothing more until the server stops."""
    endless: int = 0
    """Megabytes of blanks that follow."""
    gzipped: bool = False


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Scripted(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.replies: list[Reply] = []
        """Taken from the front; the last one stays."""
        self.by_path: dict[str, Callable[[Request], Reply]] = {}
        self.requests: list[Request] = []
        self.sent = 0
        """Megabytes of endless bodies that were taken off us."""
        self.stopping = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve(None)

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _serve(self, body: object) -> None:
        server = self.server
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body)
        server.requests.append(request)
        make = server.by_path.get(self.path.partition("?")[0])
        if make is not None:
            reply = make(request)
        elif len(server.replies) > 1:
            reply = server.replies.pop(0)
        else:
            reply = server.replies[0]
        self._send(reply)

    def _send(self, reply: Reply) -> None:
        content = gzip.compress(reply.body) if reply.gzipped else reply.body
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.gzipped:
            self.send_header("Content-Encoding", "gzip")
        if not reply.hang and not reply.endless:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if reply.cut is None else content[: reply.cut])
        self.wfile.flush()
        self.close_connection = True
        if reply.hang:
            self.server.stopping.wait(30)
        for _ in range(reply.endless):
            self.wfile.write(b" " * 1024 * 1024)
            self.server.sent += 1


@contextmanager
def serving() -> Iterator[Scripted]:
    server = Scripted()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()
