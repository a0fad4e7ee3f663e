"""Every rule of scheduling.md that can be checked from outside, after every commit."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator

from tests.loops.world import World
from tests.simulation.history import HELD, Change, History, Life, Step, Violation
from tests.simulation.processes import Facts, Processes, orphans

VISIBILITY = 300.0

Row = tuple[str, str, str, str | None, str | None, int, str, str, int]
"""id, project, status, node, lease_owner, attempt, depends_on, modifies, exclusive."""

_ROWS = (
    "SELECT id, project, status, node, lease_owner, attempt, depends_on, modifies, exclusive"
    " FROM tasks"
)


class Invariants:
    """Looks at a world from outside, over a connection of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._conn = sqlite3.connect(world.db, isolation_level=None)
        self._version = -1
        self._last_event = 0
        self._rows: frozenset[Row] = frozenset()
        self._by_id: dict[str, Row] = {}
        self._lists: dict[str, tuple[str, ...]] = {}
        self.looks = 0
        self.cancelled: set[str] = set()
        """Tasks that the operator has cancelled and not retried since."""
        self.history = History()
        self.processes = Processes(
            Facts(self._silent, self._slots, self._overlap, self.cancelled.__contains__)
        )

    def close(self) -> None:
        self._conn.close()

    # --- after every commit

    def look(self) -> list[Change]:
        """Check what has been committed since the last look; return the changes of status.

        Raises Violation.
        """
        version = self._conn.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return []
        self._version = version
        self.looks += 1
        self._conn.execute("BEGIN")
        rows = frozenset(self._conn.execute(_ROWS).fetchall())
        steps = list(self._new_steps())
        self._conn.execute("COMMIT")
        changed = rows - self._rows
        self._keep(rows, changed)
        self.processes.take(self._world.machines, self.history.lives)
        changes = [change for step in steps if (change := self.history.apply(step))]
        for change in changes:
            self._check_change(change)
        for task_id in {row[0] for row in changed} | {change.task_id for change in changes}:
            self._check_told(self._by_id[task_id], self.history.lives[task_id])
        if changes:
            self._check_held()
        return changes

    def _new_steps(self) -> Iterator[Step]:
        for row in self._conn.execute(
            "SELECT id, timestamp, task_id, event_type, details FROM events WHERE id > ?"
            " ORDER BY id",
            (self._last_event,),
        ):
            self._last_event = row[0]
            if row[2] is not None:
                yield Step(row[0], row[1], row[2], row[3], json.loads(row[4]))

    def _keep(self, rows: frozenset[Row], changed: frozenset[Row]) -> None:
        self._rows = rows
        self._by_id |= {row[0]: row for row in changed}
        if len(rows) != len(self._by_id):
            lost = self._by_id.keys() - {row[0] for row in rows}
            raise Violation(f"tasks are gone: {sorted(lost)}")

    def _check_told(self, row: Row, life: Life) -> None:
        """The row is where its events have brought it."""
        task_id, _, status, node, lease, attempt, *_ = row
        if status != life.status or attempt != life.attempt:
            raise Violation(
                f"{task_id}: the row says {status}, attempt {attempt};"
                f" its events say {life.status}, attempt {life.attempt}"
            )
        if status in HELD and (lease != life.lease or not (lease or "").startswith(f"{node}:")):
            raise Violation(f"{task_id}: {status} on {node} with lease {lease}, not {life.lease}")

    def _check_change(self, change: Change) -> None:
        if change.lease is not None and change.after not in HELD:
            self.processes.freed(change)
        if change.after in (*HELD, "completed"):
            row = self._by_id[change.task_id]
            waiting = [p for p in self._list(row[6]) if self._status(p) != "completed"]
            if waiting:
                raise Violation(f"{change.task_id}: {change.after} before {waiting}")
        if change.after == "deadletter":
            self._check_burial(change)

    def _check_burial(self, change: Change) -> None:
        """No retry is left, or the operator wanted it."""
        life, task_id = self.history.lives[change.task_id], change.task_id
        allowed = self._conn.execute(
            "SELECT max_retries FROM tasks WHERE id = ?", (task_id,)
        ).fetchone()[0]
        if not (
            (change.step.details["cause"] == "operator" and task_id in self.cancelled)
            or life.failures >= min(allowed, 2)
            or life.attempt >= 15
            or life.empty_runs >= 2
        ):
            raise Violation(f"{task_id}: deadletter after {life.failures} failures of its own")

    def _check_held(self) -> None:
        held = [row for row in self._by_id.values() if row[2] in HELD]
        for node, count in Counter(row[3] or "" for row in held).items():
            if count > self._slots(node):
                raise Violation(f"{node} holds {count} tasks, more than it has slots")
        for n, row in enumerate(held):
            for other in held[:n]:
                if row[1] == other[1] and self._overlap(row[0], other[0]):
                    raise Violation(f"{row[0]} and {other[0]} are held and modify one file")
        locks = set(self._conn.execute("SELECT task_id, file_path FROM file_locks").fetchall())
        wanted = {(row[0], path) for row in held if row[8] for path in self._list(row[7])}
        if locks != wanted:
            raise Violation(f"file_locks are {sorted(locks)}, not {sorted(wanted)}")

    # --- what the checks ask

    def _status(self, task_id: str) -> str | None:
        row = self._by_id.get(task_id)
        return None if row is None else row[2]

    def _list(self, column: str) -> tuple[str, ...]:
        if column not in self._lists:
            self._lists[column] = tuple(json.loads(column))
        return self._lists[column]

    def _overlap(self, one: str, other: str) -> bool:
        files = (
            [path.casefold().rstrip("/") for path in self._list(self._by_id[task_id][7])]
            for task_id in (one, other)
        )
        mine, others = files
        return any(
            a == b or a.startswith(f"{b}/") or b.startswith(f"{a}/") for a in mine for b in others
        )

    def _slots(self, node: str) -> int:
        return self._world.slots[node]

    def _silent(self, node: str) -> bool:
        heard = max(self._world.machines[node].answered_at, self._world.context.started_at)
        return self._world.clock.wall() - heard >= VISIBILITY

    # --- at the end

    def check_end(self) -> None:
        """All that can be done is done, and nothing is left over. Raises Violation."""
        self.processes.take(self._world.machines, self.history.lives)
        blocked: set[str] = set()
        for task_id in sorted(self._by_id, key=lambda key: (key.casefold(), key)):
            self._check_final(self._by_id[task_id], blocked)
        counts = self._conn.execute("SELECT name FROM nodes WHERE running_count != 0").fetchall()
        if counts:
            raise Violation(f"running_count is not 0: {counts}")
        left = orphans(self.processes.live.values(), self.history.lives)
        if left:
            raise Violation(f"still run at the end, and belong to nobody: {left}")

    def _check_final(self, row: Row, blocked: set[str]) -> None:
        """`blocked`: tasks before this one that will never be completed; ids are in DAG order."""
        task_id, status = row[0], row[2]
        parents = self._list(row[6])
        if status == "completed":
            return
        waits = any(p in blocked for p in parents)
        blocked.add(task_id)
        if status == "deadletter" or (status == "pending" and waits):
            return
        raise Violation(
            f"at the end {task_id} is {status}, attempt {row[5]}, lease {row[4]},"
            f" parents {[(p, self._status(p)) for p in parents]}"
        )
