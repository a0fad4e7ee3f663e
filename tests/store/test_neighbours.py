"""Other programs use the file too: nobody's write is lost, and nobody hears that it is busy."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from dispatch_controller.runtime.threads import in_thread
from dispatch_controller.store import events, tasks
from dispatch_controller.store.connection import get_db
from dispatch_controller.store.schema import TABLES, prepare
from dispatch_controller.store.store import Store
from tests.make import insert_task

HOLDS_THE_LOCK = """
import sqlite3, sys
conn = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
conn.execute("BEGIN IMMEDIATE")
conn.execute("INSERT INTO events (timestamp, event_type) VALUES ('t', 'neighbour')")
print("held", flush=True)
sys.stdin.readline()
conn.execute("COMMIT")
print(1)
"""

WRITES_WITHOUT_PAUSE = """
import sqlite3, sys, threading
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
conn = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
n = 0
while not stop.is_set():
    conn.execute("BEGIN IMMEDIATE")
    conn.execute("INSERT INTO events (timestamp, event_type) VALUES ('t', 'neighbour')")
    conn.execute("UPDATE tasks SET updated_at = coalesce(updated_at, 0) + 1 WHERE id = 'shared'")
    conn.execute("COMMIT")
    n += 1
    if n == 1:
        print("held", flush=True)
print(n)
"""


class Neighbour:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def started(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"

    def ask_to_stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None

    def ended(self) -> int:
        """Return how many times it wrote."""
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        return int(out)


def stop(crowd: list[Neighbour]) -> list[int]:
    """Let them end, all at once: one that goes on would starve the others."""
    for neighbour in crowd:
        neighbour.ask_to_stop()
    return [neighbour.ended() for neighbour in crowd]


@contextmanager
def neighbours(script: str, path: Path, count: int) -> Iterator[list[Neighbour]]:
    """Run programs that know nothing of this one; they are ended if the test does not."""
    argv = [sys.executable, "-c", script, str(path)]
    pipe = subprocess.PIPE
    found = [
        Neighbour(subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        for _ in range(count)
    ]
    try:
        for neighbour in found:
            neighbour.started()
        yield found
    finally:
        for neighbour in found:
            if neighbour.process.poll() is None:
                neighbour.process.kill()
                neighbour.process.communicate()


async def write_many(store: Store, callers: int, each: int) -> None:
    async def caller(n: int) -> None:
        for k in range(each):
            await store.write(insert_task, f"T{n:02}-{k:02}")

    async with trio.open_nursery() as nursery:
        for n in range(callers):
            nursery.start_soon(caller, n)


def written(path: Path) -> tuple[int, int, int]:
    """Return (our tasks, their events, what they added up in one row)."""
    with get_db(path) as conn:
        return (
            conn.execute("SELECT count(*) FROM tasks WHERE id LIKE 'T%'").fetchone()[0],
            conn.execute("SELECT count(*) FROM events WHERE event_type = 'neighbour'").fetchone()[
                0
            ],
            conn.execute("SELECT sum(updated_at) FROM tasks WHERE id = 'shared'").fetchone()[0],
        )


async def test_a_neighbour_that_holds_the_write_lock_for_seconds(
    store: Store, db_path: Path
) -> None:
    await store.write(insert_task, "shared", updated_at=0)
    with neighbours(HOLDS_THE_LOCK, db_path, 1) as holder:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_many, store, 8, 5)
            end = trio.current_time() + 2.5
            slowest = 0.0
            while (began := trio.current_time()) < end:
                assert await store.read(tasks.counts) == {**await store.read(tasks.counts)}
                slowest = max(slowest, trio.current_time() - began)
                await trio.sleep(0.02)
            assert store.depth == 8
            assert store.stats.blocked_since is not None
            assert await in_thread(stop, holder) == [1]
        assert slowest < 1
    assert written(db_path) == (40, 1, 0)
    assert store.stats.last_error is None


@pytest.mark.slow
async def test_five_neighbours_that_write_without_pause(store: Store, db_path: Path) -> None:
    await store.write(insert_task, "shared", updated_at=0)
    with neighbours(WRITES_WITHOUT_PAUSE, db_path, 5) as crowd:
        with trio.fail_after(60):
            await write_many(store, 10, 5)
            assert (await store.read(tasks.counts))["pending"] == 51
        counts = await in_thread(stop, crowd)
    assert min(counts) > 0
    assert written(db_path) == (50, sum(counts), sum(counts))
    assert store.stats.last_error is None
    assert store.stats.units == 51


@pytest.mark.slow
async def test_a_file_that_is_not_in_wal_mode_is_taken_over_while_a_neighbour_writes(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    path = tmp_path / "dispatch.db"
    with sqlite3.connect(path) as conn:
        for name, columns in TABLES.items():
            conn.execute(f"CREATE TABLE {name} ({columns})")
    conn.close()
    with neighbours(WRITES_WITHOUT_PAUSE, path, 1) as crowd:
        assert await in_thread(prepare, path) == frozenset()
        store = Store(path, in_thread)
        await nursery.start(store.run)
        with trio.fail_after(60):
            await store.write(insert_task, "T1")
            assert await store.read(events.last_id) > 0
        counts = await in_thread(stop, crowd)
    assert written(path)[:2] == (1, sum(counts))
    with get_db(path) as conn:
        assert conn.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
