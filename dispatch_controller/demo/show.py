"""Runs the demo's controller as a process of its own and shows what happens on the terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live
from rich.table import Table

from dispatch_controller.demo.sample import NODES, SAMPLES, write_home
from dispatch_controller.demo.verdict import verdict

COMPLAINTS = "controller.err"
"""File in the home for what the controller says on standard error."""
LIMIT = 120.0
"""Seconds after which a demo that does not end counts as failed."""

_STYLES = {
    "pending": "dim", "claimed": "cyan", "running": "bold cyan", "completed": "green",
    "failed": "yellow", "deadletter": "red",
}  # fmt: skip


class DemoFailed(Exception):
    """The demo did not come to its end; the text says why."""


def run(console: Console | None = None) -> int:
    """Run the demo; return 0 when everything came out as promised, else 1."""
    console = console or Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="dispatch-demo-") as folder:
        home = Path(folder)
        write_home(home)
        console.print(
            f"A temporary home with {len(NODES)} nodes on this machine ({', '.join(NODES)})"
            f" and {len(SAMPLES)} tasks for the shell agent: {home}"
        )
        try:
            with _controller(home) as url:
                console.print(f"The dashboard: [link={url}]{url}[/link]")
                with httpx.Client(base_url=url, timeout=10) as client:
                    tasks = _watch(client, console)
        except DemoFailed as failure:
            console.print(f"[red]{failure}[/red]\nThe controller's log:\n{_tail(home)}")
            return 1
    return _summarise(console, tasks)


@contextmanager
def _controller(home: Path) -> Iterator[str]:
    """Run a controller on `home`; yields its address; stops it with SIGTERM."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith("DISPATCH_")}
    complaints = (home / COMPLAINTS).open("wb")
    with (
        complaints,
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "dispatch_controller",
                "run",
                "--home",
                str(home),
                "--port",
                "0",
            ],
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=environment,
        ) as process,
    ):
        try:
            assert process.stdout is not None  # noqa: S101 - asked for above
            line = process.stdout.readline()
            if not line.startswith("listening on "):
                raise DemoFailed("the controller did not start")
            yield line.removeprefix("listening on ").strip()
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()


def _watch(client: httpx.Client, console: Console) -> list[dict[str, Any]]:
    """Show the tasks until all have ended; return them with their events."""
    deadline = time.monotonic() + LIMIT
    told: dict[str, str] = {}
    with Live(console=console, refresh_per_second=8, transient=False) as live:
        while True:
            tasks = _data(client, "/api/v1/tasks", limit=100)["tasks"]
            if console.is_terminal:
                live.update(_table(tasks))
            else:
                _tell(console, tasks, told)
            ended = [t for t in tasks if t["status"] in ("completed", "deadletter")]
            if len(ended) == len(SAMPLES):
                return [_data(client, f"/api/v1/tasks/{task['id']}") for task in tasks]
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"{len(SAMPLES) - len(ended)} tasks had not ended in {LIMIT:.0f} s"
                )
            time.sleep(0.2)


def _data(client: httpx.Client, path: str, **query: int) -> Any:  # noqa: ANN401 - JSON
    try:
        return client.get(path, params=query).raise_for_status().json()["data"]
    except (httpx.HTTPError, ValueError) as error:
        raise DemoFailed(f"no usable answer to {path}: {error}") from error


def _table(tasks: list[dict[str, Any]]) -> Table:
    table = Table(box=None, header_style="bold")
    for column in ("task", "status", "node", "attempt", "why"):
        table.add_column(column)
    for task in tasks:
        style = _STYLES.get(task["status"], "")
        table.add_row(
            task["id"], f"[{style}]{task['status']}[/]", task["node"] or "", str(task["attempt"]),
            _why(task),
        )  # fmt: skip
    return table


def _why(task: dict[str, Any]) -> str:
    reason = task.get("reason") or {}
    return str(reason.get("text") or task["error"] or "")


def _tell(console: Console, tasks: list[dict[str, Any]], told: dict[str, str]) -> None:
    for task in tasks:
        line = f"{task['id']:<12} {task['status']:<10} {task['node'] or ''}"
        if told.get(task["id"]) != line:
            told[task["id"]] = line
            console.print(f"{line:<32} {_why(task)}".rstrip(), markup=False, soft_wrap=True)


def _summarise(console: Console, tasks: list[dict[str, Any]]) -> int:
    promises = verdict(tasks)
    console.print()
    for promise in promises:
        console.print(f"{'[green]✓' if promise.kept else '[red]✗'}[/] {promise.text}")
    return 0 if all(promise.kept for promise in promises) else 1


def _tail(home: Path) -> str:
    try:
        return "\n".join((home / COMPLAINTS).read_text().splitlines()[-20:])
    except OSError as error:
        return str(error)
