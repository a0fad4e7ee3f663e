"""Driving a real wrapper: a `serve` over pipes, one-shot verbs, and waits with a deadline."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

OWNER = "0123456789abcdef"
PATIENCE = 20.0


def until(look: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """Return the first true value of `look`; fail with `what` when the deadline passes."""
    end = time.monotonic() + patience
    while True:
        value = look()
        if value:
            return value
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.01)


def exists(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


class Node:
    """A work_dir with a wrapper. Sequences grow by themselves."""

    def __init__(self, root: Path, wrapper: Path, python: str = sys.executable) -> None:
        self.root = root
        self.wrapper = wrapper
        self.python = python
        self.env = dict(os.environ)
        self._sequence = 0
        # A lease marks processes over the whole machine, where other tests may run too.
        self._name = f"node{os.getpid()}"

    def order(
        self,
        *argv: str,
        folder: str = "t1",
        executor: dict[str, Any] | None = None,
        **fields: object,
    ) -> dict[str, Any]:
        """An order whose agent is `sh -c` of one text, or an argv."""
        self._sequence += 1
        command = ["/bin/sh", "-c", argv[0]] if len(argv) == 1 else list(argv)
        return {
            "project": "p",
            "task_id": folder,
            "folder": folder,
            "lease": f"{self._name}:{self._sequence:08x}",
            "attempt": self._sequence,
            "sequence": self._sequence,
            "spec": "Do it.\n",
            "context": "",
            "timeout": 60,
            "executor": {"name": "x", "argv": command, **(executor or {})},
            "gates": ["exit"],
            "verify": None,
            "modifies": [],
            "write_set": "warn",
            "git": None,
            "code": "code",
            "resume": None,
            "grace": 1,
            "hop_delay": 0,
            **fields,
        }

    @property
    def code(self) -> Path:
        return self.root / "p" / "code"

    def task(self, folder: str = "t1") -> Path:
        return self.root / "p" / "tasks" / folder

    def status(self, folder: str = "t1") -> dict[str, Any]:
        status: dict[str, Any] = json.loads((self.task(folder) / "status.json").read_text())
        return status

    def final(self, folder: str = "t1") -> dict[str, Any]:
        """Wait for a final status on disk."""

        def look() -> dict[str, Any] | None:
            try:
                status = self.status(folder)
            except FileNotFoundError:
                return None
            return status if status["status"] in ("completed", "failed", "timeout") else None

        found = until(look, f"a final status of {folder}")
        assert found is not None
        return found

    def once(self, op: str, owner: str = OWNER, **request: object) -> dict[str, Any]:
        """A one-shot verb's result. Fails without its closing line."""
        argv = [self.python, str(self.wrapper), op, "--root", str(self.root), "--owner", owner]
        done = subprocess.run(
            argv, input=json.dumps(request).encode(), capture_output=True, timeout=60, check=True,
            env=self.env,
        )  # fmt: skip
        reply, end = (json.loads(line) for line in done.stdout.splitlines())
        assert end == {"end": True}
        assert reply["ok"], reply
        result: dict[str, Any] = reply["result"]
        return result

    @contextmanager
    def serve(self, owner: str = OWNER, *options: str) -> Iterator[Serve]:
        """A `serve`, ended by closing its channel."""
        serve = Serve(self, owner, options)
        try:
            yield serve
        finally:
            serve.close()


class Serve:
    """One running `serve`: what it said is kept until it is asked for."""

    def __init__(self, node: Node, owner: str, options: tuple[str, ...]) -> None:
        argv = [node.python, str(node.wrapper), "serve", "--root", str(node.root)]
        self.process = subprocess.Popen(
            [*argv, "--owner", owner, *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=node.env,
        )  # fmt: skip
        self._raw = b""
        self._said: list[dict[str, Any]] = []
        self._id = 0
        self.hello = self.wait(lambda m: m.get("event") == "hello")
        self.state = self.wait(lambda m: m.get("event") == "state")

    def send(self, op: str, **request: object) -> int:
        """Send a request without waiting. Returns its id."""
        self._id += 1
        assert self.process.stdin is not None
        line = json.dumps({"id": self._id, "op": op, **request})
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        return self._id

    def ask(self, op: str, **request: object) -> dict[str, Any]:
        """Send and return the result; an error fails."""
        reply = self.reply(self.send(op, **request))
        assert reply["ok"], reply
        result: dict[str, Any] = reply["result"]
        return result

    def reply(self, number: int) -> dict[str, Any]:
        return self.wait(lambda m: m.get("id") == number)

    def start(self, order: dict[str, Any]) -> dict[str, Any]:
        return self.ask("start", order=order)

    def event(self, folder: str, *statuses: str) -> dict[str, Any]:
        """Wait for a `task` event of a folder with one of these statuses; returns its Task."""

        def wanted(m: dict[str, Any]) -> bool:
            if m.get("event") != "task" or m["task"]["folder"] != folder:
                return False
            return m["task"]["status"]["status"] in statuses

        task: dict[str, Any] = self.wait(wanted)["task"]
        return task

    def end(self, folder: str = "t1") -> dict[str, Any]:
        """Wait for the end of a task; returns its final status."""
        status: dict[str, Any] = self.event(folder, "completed", "failed", "timeout")["status"]
        return status

    def wait(
        self, wanted: Callable[[dict[str, Any]], bool], patience: float = PATIENCE
    ) -> dict[str, Any]:
        """Return the first message that is wanted; others stay for later."""
        end = time.monotonic() + patience
        looked = 0
        while True:
            for at in range(looked, len(self._said)):
                if wanted(self._said[at]):
                    return self._said.pop(at)
            looked = len(self._said)
            self._read(end)

    def _read(self, end: float) -> None:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
        assert ready, f"no such message; said: {self._said}"
        piece = os.read(self.process.stdout.fileno(), 1 << 16)
        if not piece:
            raise EOFError(f"serve ended ({self.process.poll()}); said: {self._said}")
        *lines, self._raw = (self._raw + piece).split(b"\n")
        self._said += [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close the channel and wait for `serve` to end by itself."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                stream.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
