"""The group commit against one connection and commit per write, in one run."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import trio

from dispatch_controller.bench.figure import Figure, milliseconds
from dispatch_controller.runtime.threads import in_thread
from dispatch_controller.store.plain_writes import one_by_one
from dispatch_controller.store.schema import prepare
from dispatch_controller.store.store import Store
from dispatch_controller.store.writer import Connection

CALLERS, WRITES, PLAIN = 64, 12_800, 300


def measure() -> list[Figure]:
    """Return writes per second both ways, their ratio, and what an fsync costs here."""
    with tempfile.TemporaryDirectory(prefix="dispatch-bench-") as folder:
        path = Path(folder) / "dispatch.db"
        prepare(path)
        fsync = _fsync_cost(Path(folder) / "probe")
        began = time.perf_counter()
        one_by_one(path, PLAIN)
        plain = PLAIN / (time.perf_counter() - began)
        grouped, longest = trio.run(_grouped, path)
    ratio = grouped / plain
    return [
        Figure("an fsync", milliseconds(fsync)),
        Figure("one connection and commit per write", f"{plain:.0f}/s"),
        Figure(f"group commit, {CALLERS} callers", f"{grouped:.0f}/s"),
        Figure("ratio", f"{ratio:.1f}", "20 or more", ratio >= 20),
        Figure("longest wait of a caller", milliseconds(longest)),
    ]


def _fsync_cost(path: Path) -> float:
    with path.open("wb") as file:
        began = time.perf_counter()
        for _ in range(20):
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
        return (time.perf_counter() - began) / 20


async def _grouped(path: Path) -> tuple[float, float]:
    store = Store(path, in_thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        began = time.perf_counter()
        async with trio.open_nursery() as callers:
            for caller in range(CALLERS):
                callers.start_soon(_write_many, store, caller)
        took = time.perf_counter() - began
        await store.drain()
    return WRITES / took, max(store.stats.waits)


async def _write_many(store: Store, caller: int) -> None:
    for number in range(WRITES // CALLERS):
        await store.write(_insert, f"n{caller}-{number}")


def _insert(conn: Connection, name: str) -> None:
    conn.execute("INSERT INTO nodes (name) VALUES (?)", (name,))
