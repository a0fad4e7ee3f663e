"""Whole tasks a second, here and over SSH, beside GNU parallel in the same run."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from dispatch_controller.bench import homes
from dispatch_controller.bench.figure import Figure

TASKS, SLOTS = 2000, 64


def measure() -> list[Figure]:
    """Return tasks a second of both, on this machine and over one loopback SSH node."""
    with tempfile.TemporaryDirectory(prefix="dispatch-bench-") as name:
        folder = Path(name)
        figures = _beside(
            "on this machine", _ours(folder / "local", None, ""), _parallel(folder, [])
        )
        try:
            with homes.loopback_sshd(folder) as settings:
                ours = _ours(folder / "remote", "loop", settings)
                ssh = ["--sshlogin", f"{SLOTS}/ssh -F {folder}/ssh_config loop"]
                figures += _beside("over SSH on loopback", ours, _parallel(folder, ssh))
        except homes.BenchFailed as failure:
            figures.append(Figure("over SSH on loopback", str(failure)))
    return figures


def _beside(where: str, ours: float, theirs: float | None) -> list[Figure]:
    title = f"{TASKS} tasks of `true`, {SLOTS} slots, {where}"
    if theirs is None:
        return [Figure(title, f"{ours:.0f}/s (GNU parallel is not installed)")]
    ratio = ours / theirs
    value = f"{ours:.0f}/s; GNU parallel with a job log {theirs:.0f}/s; ratio {ratio:.2f}"
    return [Figure(title, value, "ratio 1 or more", ratio >= 1)]


def _ours(home: Path, ssh_host: str | None, settings: str) -> float:
    """Registered → claimed → running → recorded, tasks a second."""
    node = {"name": "bench", "ssh_host": ssh_host, "slots": SLOTS, "executor": "shell",
            "work_dir": str(home / "node")}  # fmt: skip
    # The spec folder is registered by the measured request, not by the loop before it.
    homes.write_home(home, [node], f"{settings}\n[loops.db_sync]\ninterval = 3600\n")
    with homes.controller(home) as client:
        homes.wait_for_nodes(client, 1)
        homes.write_specs(home, TASKS)
        began = time.perf_counter()
        homes.register(client, home)
        homes.wait_completed(client, TASKS)
        return TASKS / (time.perf_counter() - began)


def _parallel(folder: Path, options: list[str]) -> float | None:
    """GNU parallel on as many jobs, tasks a second; None where it is not installed."""
    program = shutil.which("parallel")
    if program is None:
        return None
    log = folder / "joblog"
    log.unlink(missing_ok=True)
    began = time.perf_counter()
    subprocess.run(
        [program, f"-j{SLOTS}", "--joblog", str(log), *options, "true"],
        input="\n".join(map(str, range(TASKS))), text=True, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return TASKS / (time.perf_counter() - began)
