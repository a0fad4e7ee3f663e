"""What the former daemons left in dispatch.db is cleaned up at once; no task is lost."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from dispatch_controller.store.schema import prepare
from tests.faults.neighbour import sound
from tests.loops.world import EPOCH, World

EVENTS = 190_000
"""About 38 MB of them."""
MONTH = 30 * 86400

LEFT: dict[str, dict[str, Any]] = {
    # Running for a month, with neither pid nor lease, times without an offset.
    "running-no-pid": {"status": "running", "node": "n1", "attempt": 1, "lease_owner": None},
    # Its lease ran out a month ago; the node has no such process.
    "running-expired": {
        "status": "running", "node": "n1", "attempt": 2, "pid": 4242,
        "lease_owner": "n1:0badcafe", "lease_expires_at": -MONTH,
    },
    "claimed-expired": {
        "status": "claimed", "node": "n2", "attempt": 1,
        "lease_owner": "n2:0badcafe", "lease_expires_at": -MONTH,
    },
    "pending-leased": {
        "status": "pending", "lease_owner": "n1:deadbeef", "lease_expires_at": -MONTH,
    },
    "pending": {"status": "pending"},
    "failed": {"status": "failed", "attempt": 1, "node": "n1", "error": "exit 1"},
    # On a machine that is in no list any more.
    "running-nowhere": {
        "status": "running", "node": "sold", "attempt": 1, "pid": 17,
        "lease_owner": "sold:00000001", "lease_expires_at": -MONTH,
    },
}  # fmt: skip
DONE = "completed-long-ago"


def leave(database: Path, specs: dict[str, Path], now: float) -> None:
    """Write the rows as the old programs did: naive local times, no events of attempts."""
    naive = (datetime.fromtimestamp(now) - timedelta(days=30)).isoformat()  # noqa: DTZ006
    with closing(sqlite3.connect(database)) as conn, conn:
        for task, columns in {**LEFT, DONE: {"status": "completed", "attempt": 1}}.items():
            row: dict[str, Any] = {
                "id": task, "project": "p", "spec_file": str(specs[task]),
                "modifies": json.dumps([f"{task}.txt"]), **columns,
            }  # fmt: skip
            if "lease_expires_at" in columns:
                row["lease_expires_at"] = int(now) - MONTH
            if columns["status"] != "pending":
                row |= {"started_at": naive, "heartbeat_at": naive}
            names = ", ".join(row)
            conn.execute(
                f"INSERT INTO tasks ({names}) VALUES ({', '.join('?' * len(row))})",
                list(row.values()),
            )
        conn.executemany(
            "INSERT INTO file_locks VALUES (?, ?, ?)",
            [("src/a.py", "no-such-task", naive), ("pending.txt", "gone", naive),
             ("x.py", DONE, naive)],
        )  # fmt: skip
        conn.executemany(
            "INSERT INTO events (timestamp, task_id, event_type, node, details)"
            " VALUES (?, ?, 'status_sync', 'n1', ?)",
            ((naive, f"old-{n % 500}", json.dumps({"note": "x" * 120, "n": n}))
             for n in range(EVENTS)),
        )  # fmt: skip


@pytest.mark.slow
async def test_rows_left_by_the_former_daemons_are_cleaned_up_and_no_task_is_lost(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    prepare(tmp_path / "dispatch.db")
    world = World(tmp_path)
    specs = {task: world.spec(task, project="p") for task in (*LEFT, DONE)}
    leave(world.db, specs, EPOCH)
    assert world.db.stat().st_size > 38_000_000
    machines = [world.node("n1", slots=4, running_count=7), world.node("n2", slots=4)]

    async with world.controller():
        here = {task.replace("-", "_"): "completed" for task in LEFT if task != "running-nowhere"}
        await world.until(300, **here)
        await world.settled(1200)
        await trio.sleep(61)  # one more cycle of the reaper

    assert set(world.status().values()) == {"completed"}
    started = sorted(t.folder for m in machines for t in m.trace if t.what == "started")
    assert started == sorted(LEFT)
    with closing(sqlite3.connect(world.db)) as conn:
        assert conn.execute("SELECT count(*) FROM file_locks").fetchone()[0] == 0
        assert conn.execute("SELECT sum(running_count) FROM nodes").fetchone()[0] == 0
    assert sound(world.db)
