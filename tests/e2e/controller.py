"""The real program as a process of its own, driven as people and programs drive it."""

# ruff: noqa: ANN401 - what comes out of JSON is anything

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

PROGRAM = (sys.executable, "-m", "dispatch_controller")
ENDED = ("completed", "deadletter")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without anybody's settings."""
    ours = {n: v for n, v in os.environ.items() if not n.startswith(("DISPATCH_", "CONTROLLER_"))}
    return {**ours, **(extra or {})}


@dataclass(slots=True)
class Controller:
    """`dispatch-controller run` on one home; started and ended as often as a test likes."""

    home: Path
    url: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the process."""
    _process: subprocess.Popen[str] | None = None
    _client: httpx.Client | None = None

    @property
    def complaints(self) -> Path:
        """File with what all starts said on standard error."""
        return self.home.parent / f"{self.home.name}.stderr"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def launch(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the program and return at once; `start` waits until it serves."""
        with self.complaints.open("ab") as complaints:
            self._process = subprocess.Popen(
                [*PROGRAM, "run", "--home", str(self.home), "--port", "0", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                env=environment(self.extra),
            )
        return self._process

    def start(self, *arguments: str) -> Controller:
        process = self.launch(*arguments)
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 30)
        line = process.stdout.readline() if ready else ""
        assert line.startswith("listening on http://"), self.said()
        self.url = line.removeprefix("listening on ").strip()
        self._client = httpx.Client(base_url=self.url, timeout=15)
        return self

    def terminate(self, within: float = 40.0) -> tuple[int, float]:
        """Send SIGTERM; return the exit status and the seconds until the end."""
        process = self._ended_client()
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        status = process.wait(within)
        took = time.monotonic() - begun
        _close(process)
        return status, took

    def kill(self) -> None:
        """End it with kill -9, as a power cut would."""
        process = self._ended_client()
        process.kill()
        process.wait()
        _close(process)

    def _ended_client(self) -> subprocess.Popen[str]:
        assert self._process is not None
        if self._client is not None:
            self._client.close()
            self._client = None
        return self._process

    def close(self) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                self.kill()
        _close(self._ended_client())

    # -- HTTP

    def answer(self, method: str, path: str, **more: Any) -> httpx.Response:
        assert self._client is not None
        return self._client.request(method, path, **more)

    def get(self, path: str, **query: Any) -> Any:
        """Return `data` of /api/v1/<path>."""
        return self.answer("GET", f"/api/v1/{path}", params=query).raise_for_status().json()["data"]

    def post(self, path: str, body: Any = None) -> Any:
        answer = self.answer("POST", f"/api/v1/{path}", json=body or {})
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def tasks(self, **query: Any) -> dict[str, dict[str, Any]]:
        """Return all tasks by id."""
        rows: list[dict[str, Any]] = []
        while True:
            page = self.get("tasks", limit=1000, offset=len(rows), **query)
            rows += page["tasks"]
            if len(rows) >= page["total"] or not page["tasks"]:
                return {row["id"]: row for row in rows}

    def counts(self) -> dict[str, int]:
        """Return tasks by status, in one cheap request."""
        found: dict[str, int] = self.answer("GET", "/v1/status").json()["tasks"]
        return {status: number for status, number in found.items() if number}

    def task(self, task_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"tasks/{task_id}")
        return found

    def events(self, task_id: str) -> list[str]:
        """Return the kinds of a task's events, oldest first."""
        events = sorted(self.task(task_id)["events"], key=lambda event: event["id"])
        return [event["event_type"] for event in events]

    def register(self, *paths: Path) -> dict[str, Any]:
        found: dict[str, Any] = self.post("register", {"paths": [str(path) for path in paths]})
        return found

    def wait(self, task_id: str, *statuses: str, timeout: float = 30.0) -> dict[str, Any]:
        """Return the task once it is in one of the states."""

        def look() -> dict[str, Any] | None:
            row = self.task(task_id)
            return row if row["status"] in statuses else None

        return eventually(look, timeout, lambda: self.task(task_id))

    def wait_all(self, timeout: float, statuses: Iterable[str] = ENDED) -> None:
        """Return once every task is in one of the states."""
        wanted = set(statuses)
        eventually(lambda: set(self.counts()) <= wanted, timeout, self.counts)

    # -- the command line

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(*arguments, "--home", str(self.home))

    def json(self, *arguments: str) -> Any:
        """Return what a command prints with --json; it must succeed."""
        done = self.command(*arguments, "--json")
        assert done.returncode == 0, done
        return json.loads(done.stdout)

    def reach(self, nodes: int, timeout: float = 20.0) -> None:
        """Return once so many nodes answer: right after the start none is known yet."""
        eventually(
            lambda: sum(bool(n["reachable"]) for n in self.get("nodes")) == nodes,
            timeout,
            self.said,
        )

    # -- what it said

    def said(self) -> str:
        return self.complaints.read_text() if self.complaints.exists() else ""

    def log(self) -> list[dict[str, Any]]:
        """Return the log's lines."""
        lines = (self.home / "logs" / "controller.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def errors(self) -> list[str]:
        """Return what was logged as an error, each as readable text."""
        wrong = [line for line in self.log() if line["level"] in ("error", "critical")]
        return ["\n".join(f"{key}: {value}" for key, value in line.items()) for line in wrong]


def _close(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    process.stdout.close()


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def run(
    *arguments: str, timeout: float = 60.0, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one command of the program to its end."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(env),
        check=False,
    )


def eventually(look: Callable[[], T | None], timeout: float, found: Callable[[], object]) -> T:
    """Return what `look` returns as soon as that is true; fail, showing `found`, after `timeout`.

    For what another process does in its own time, and tells nobody.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = look()
        if value:
            return value
        assert time.monotonic() < deadline, found()
        time.sleep(0.03)
