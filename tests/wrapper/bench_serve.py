"""How many tasks a second one `serve` carries, everything on the node included.

Run it by hand: `python tests/wrapper/bench_serve.py [tasks] [at once]`, or by `pytest -m bench`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from dispatch_controller.fleet.bundle import build

GATES = ["exit"]


def order(number: int, gates: list[str]) -> dict[str, Any]:
    executor = {"name": "true", "argv": ["/bin/true"], "modes": [{"api_mode": "direct"}]}
    return {
        "project": "bench", "task_id": f"t{number}", "folder": f"t{number}", "code": "code",
        "lease": f"here:{number:08x}", "attempt": 1, "sequence": number + 1, "spec": "x" * 2000,
        "context": "y" * 2000, "timeout": 600, "executor": executor, "gates": gates,
        "verify": None, "modifies": [], "git": None,
    }  # fmt: skip


def measure(root: Path, tasks: int, at_once: int, gates: list[str]) -> tuple[float, float, float]:
    """Return (tasks/s from the first start to the last end, median start in ms, CPU ms a task).

    The CPU time of everything on the node does not depend on what else this machine does.
    """
    wrapper = root / build().name
    wrapper.write_bytes(build().content)
    before = _cpu()
    argv = [sys.executable, str(wrapper), "serve", "--root", str(root), "--owner", "0" * 16]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as serve:
        assert serve.stdin is not None
        assert serve.stdout is not None
        serve.stdout.readline(), serve.stdout.readline()
        sent: dict[int, float] = {}
        took: list[float] = []
        ended = 0
        began = time.perf_counter()
        while ended < tasks:
            while len(sent) < tasks and len(sent) - ended < at_once:
                number = len(sent)
                line = {"id": number, "op": "start", "order": order(number, gates)}
                sent[number] = time.perf_counter()
                serve.stdin.write(json.dumps(line).encode() + b"\n")
            serve.stdin.flush()
            said = json.loads(serve.stdout.readline())
            if said.get("event") == "task":
                ended += said["task"]["status"]["status"] != "running"
            else:
                assert said["result"]["outcome"] == "running", said
                took.append(time.perf_counter() - sent[said["id"]])
        seconds = time.perf_counter() - began
        serve.stdin.close()
        serve.wait(10)
    return tasks / seconds, sorted(took)[len(took) // 2] * 1000, (_cpu() - before) / tasks * 1000


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.bench
def test_one_serve_carries_hundreds_of_tasks_a_second(tmp_path: Path) -> None:
    rate, start, cpu = measure(tmp_path, 1000, 16, GATES)
    print(f"\n{rate:.0f} tasks/s, start {start:.1f} ms (median), CPU {cpu:.2f} ms a task")
    assert rate > 50  # a busy machine; the printed figures are the result


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:3]]
    count, width = [*numbers, *[2000, 16][len(numbers) :]]
    for chosen in (GATES, ["exit", "conflict_markers", "verify"]):
        with tempfile.TemporaryDirectory() as folder:
            speed, median, spent = measure(Path(folder), count, width, chosen)
        print(f"gates {chosen}: {speed:.0f} tasks/s, start {median:.1f} ms, CPU {spent:.2f} ms")
