"""One scheduling pass over 100,000 pending tasks and 200 nodes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from dispatch_controller.bench.figure import Figure, milliseconds
from dispatch_controller.core.placement import Conditions
from dispatch_controller.model import SpecExtras
from dispatch_controller.runtime.threads import in_thread
from dispatch_controller.store import board
from dispatch_controller.store.plain_writes import fill
from dispatch_controller.store.schema import prepare
from dispatch_controller.store.store import Store

TASKS, NODES, PASSES = 100_000, 200, 5
NOW = 1_790_000_000.0


def measure() -> list[Figure]:
    """Return how long a pass takes, and how late the event loop was meanwhile."""
    with tempfile.TemporaryDirectory(prefix="dispatch-bench-") as folder:
        path = Path(folder) / "dispatch.db"
        prepare(path)
        fill(path, TASKS, NODES)
        took, placed, late = trio.run(_passes, path)
    best = min(took)
    return [
        Figure(f"a pass over {TASKS} pending tasks, {NODES} nodes, {placed} placed",
               f"best {milliseconds(best)} of {PASSES}", "under 250 ms", best < 0.25),
        Figure("the event loop was late by", f"at most {milliseconds(late)}", "under 50 ms",
               late < 0.05),
    ]  # fmt: skip


async def _passes(path: Path) -> tuple[list[float], int, float]:
    store = Store(path, in_thread)
    conditions = Conditions(
        extras={"spec.md": SpecExtras("-", "shell", None, 120)},
        alive=frozenset(f"node{number:03}" for number in range(NODES)),
    )

    def refresh(_: Sequence[str]) -> dict[str, SpecExtras]:
        return dict(conditions.extras)

    took, placed, late = [], 0, [0.0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch, late)
        for _ in range(PASSES):
            began = time.perf_counter()
            result = await store.read(board.run_pass, conditions, refresh, NOW, reputation=True)
            took.append(time.perf_counter() - began)
            placed = len(result.placements)
        nursery.cancel_scope.cancel()
    return took, placed, late[0]


async def _watch(late: list[float]) -> None:
    while True:
        due = trio.current_time() + 0.005
        await trio.sleep_until(due)
        late[0] = max(late[0], trio.current_time() - due)
