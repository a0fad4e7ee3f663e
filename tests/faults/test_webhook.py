"""Alerts go to a real HTTP server; one that hangs or refuses holds up nobody."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.e2e.conftest import Starter
from tests.e2e.controller import Controller, eventually
from tests.e2e.homes import makes, write_home, write_spec

TOKEN = "hook-secret-4711"


@contextmanager
def listener() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Run a web server; yield its address and what was posted to it."""
    posted: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{TOKEN}", posted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def with_a_dead_task(controller_on: Starter, folder: Path, address: str) -> Controller:
    """Return a controller that has something to tell: a task that nobody can do."""
    settings = f'webhook_url = "{address}"'
    home = write_home(folder / "home", {"here": 2}, settings=settings)
    text = (home / "dispatch.toml").read_text()
    (home / "dispatch.toml").write_text(f"{text}\n[loops.guardian]\ninterval = 0.5\n")
    controller = controller_on(home).start()
    write_spec(folder / "work", "D1", "exit 3", max_retries=0)
    controller.register(folder / "work")
    controller.wait("D1", "deadletter")
    return controller


def alerts(controller: Controller) -> list[dict[str, object]]:
    found = sorted((controller.home / "guardian_alerts").glob("*.json"))
    return [json.loads(path.read_text()) for path in found]


def check_work_goes_on(controller: Controller, folder: Path) -> None:
    eventually(lambda: len(alerts(controller)) == 1, 20, controller.said)
    write_spec(folder / "more", "A1", makes())
    controller.register(folder / "more")
    controller.wait("A1", "completed")
    assert controller.terminate()[0] == 0
    assert controller.errors() == []
    assert TOKEN not in controller.said()


def test_an_alert_is_posted_once_as_its_file_says(controller_on: Starter, tmp_path: Path) -> None:
    with listener() as (address, posted):
        controller = with_a_dead_task(controller_on, tmp_path, address)
        eventually(lambda: posted, 20, controller.said)
        check_work_goes_on(controller, tmp_path)
        assert posted == alerts(controller)
        assert posted[0].keys() == {"type", "message", "severity", "timestamp"}


@pytest.mark.parametrize("kind", ["hangs", "refuses"])
def test_a_webhook_that_does_not_answer_holds_up_nobody(
    controller_on: Starter, tmp_path: Path, kind: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        port = silent.getsockname()[1]
        if kind == "refuses":
            silent.close()
        address = f"http://127.0.0.1:{port}/{TOKEN}"
        controller = with_a_dead_task(controller_on, tmp_path, address)
        check_work_goes_on(controller, tmp_path)
