"""From runnable to running and from finished to recorded, over SSH on loopback at low load."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from dispatch_controller.bench import homes
from dispatch_controller.bench.figure import Figure, milliseconds, spread
from dispatch_controller.core.times import parse_iso

CHAIN = 40
"""Tasks in a row, each runnable when the one before it is recorded."""


def measure() -> list[Figure]:
    """Return both latencies, and what one `ssh host true` costs here."""
    with tempfile.TemporaryDirectory(prefix="dispatch-bench-") as name:
        folder = Path(name)
        try:
            with homes.loopback_sshd(folder) as settings:
                return _measure(folder, settings)
        except homes.BenchFailed as failure:
            return [Figure("latency over SSH", str(failure))]


def _measure(folder: Path, settings: str) -> list[Figure]:
    home = folder / "home"
    node = {"name": "bench", "ssh_host": "loop", "slots": 4, "executor": "shell",
            "work_dir": str(home / "node")}  # fmt: skip
    homes.write_home(home, [node], f"{settings}\n[loops.db_sync]\ninterval = 3600\n")
    with homes.controller(home) as client:
        homes.wait_for_nodes(client, 1)
        _write_chain(home)
        homes.register(client, home)
        homes.wait_completed(client, CHAIN)
        starts, ends = _latencies(client)
    ssh = _ssh_true(folder)
    return [
        Figure("runnable → running", spread(starts), "median under 100 ms", median(starts) < 0.1),
        Figure("finished → recorded", spread(ends), "median under 1 s", median(ends) < 1.0),
        Figure("one `ssh host true`", milliseconds(ssh)),
    ]


def _write_chain(home: Path) -> None:
    for path in homes.write_specs(home, CHAIN, 'date +%s.%N > "$OUTPUT_DIR/end"', "C"):
        number = int(path.stem[1:])
        if number:
            text = path.read_text().replace("---\n", f"---\ndepends_on: [C{number - 1:05}]\n", 1)
            path.write_text(text)


def _latencies(client: httpx.Client) -> tuple[list[float], list[float]]:
    tasks = {f"C{n:05}": _events(client, f"C{n:05}") for n in range(CHAIN)}
    starts, ends = [], []
    for number in range(1, CHAIN):
        mine, before = tasks[f"C{number:05}"], tasks[f"C{number - 1:05}"]
        starts.append(mine["task_running"] - before["task_completed"])
        ends.append(mine["recorded"] - mine["finished"])
    return starts, ends


def _events(client: httpx.Client, task_id: str) -> dict[str, float]:
    row: dict[str, Any] = client.get(f"/api/v1/tasks/{task_id}").json()["data"]
    found = {e["event_type"]: parse_iso(e["timestamp"]) or 0.0 for e in row["events"]}
    found["finished"] = parse_iso(row["completed_at"]) or 0.0
    found["recorded"] = parse_iso(row["collected_at"]) or 0.0
    return found


def _ssh_true(folder: Path) -> float:
    began = time.perf_counter()
    for _ in range(5):
        subprocess.run(["ssh", "-F", str(folder / "ssh_config"), "loop", "true"], check=True)
    return (time.perf_counter() - began) / 5
