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
FULL_LOOK = 50
"""Every so many looks all rows are read, not only those that say they changed."""

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
        self._by_id: dict[str, Row] = {}
        self._lists: dict[str, tuple[str, ...]] = {}
        self._paths: dict[str, tuple[str, ...]] = {}
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
        changed = self._changed_rows()
        steps = list(self._new_steps())
        self._conn.execute("COMMIT")
        self.processes.take(self._world.machines, self.history.lives)
        changes = [change for step in steps if (change := self.history.apply(step))]
        for change in changes:
            self._check_change(change)
        for task_id in {row[0] for row in changed} | {change.task_id for change in changes}:
            self._check_told(self._by_id[task_id], self.history.lives[task_id])
        held = [row for row in self._by_id.values() if row[2] in HELD]
        self._check_locks(held)
        if changes:
            self._check_held(held, [c.task_id for c in changes if c.after == "claimed"])
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

    def _changed_rows(self) -> list[Row]:
        """Return the rows that changed, and check that none is gone.

        Every transition sets updated_at; a change without it is found by the next full look.
        """
        full = self.looks % FULL_LOOK == 0
        since = 0 if full else int(self._world.clock.wall()) - 5
        rows = self._conn.execute(f"{_ROWS} WHERE updated_at >= ?", (since,)).fetchall()
        changed = [row for row in rows if self._by_id.get(row[0]) != row]
        self._by_id |= {row[0]: row for row in changed}
        count = self._conn.execute("SELECT count(*) FROM tasks").fetchone()[0]
        if count != len(self._by_id):
            raise Violation(f"there are {count} tasks, and there were {len(self._by_id)}")
        return changed

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

    def _check_held(self, held: list[Row], claimed: list[str]) -> None:
        for node, count in Counter(row[3] or "" for row in held).items():
            if count > self._slots(node):
                raise Violation(f"{node} holds {count} tasks, more than it has slots")
        for task_id in claimed:
            for other in held:
                same = self._by_id[task_id][1] == other[1] and task_id != other[0]
                if same and self._overlap(task_id, other[0]):
                    raise Violation(f"{task_id} and {other[0]} are held and modify one file")

    def _check_locks(self, held: list[Row]) -> None:
        """Every file of a held exclusive task is locked, and no other."""
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
        mine, others = self._files(self._by_id[one][7]), self._files(self._by_id[other][7])
        return any(a.startswith(b) or b.startswith(a) for a in mine for b in others)

    def _files(self, column: str) -> tuple[str, ...]:
        """Each path with a slash at its end, so that a folder begins all that is under it."""
        if column not in self._paths:
            paths = self._list(column)
            self._paths[column] = tuple(path.casefold().rstrip("/") + "/" for path in paths)
        return self._paths[column]

    def _slots(self, node: str) -> int:
        return self._world.slots[node]

    def _silent(self, node: str) -> bool:
        heard = max(self._world.machines[node].answered_at, self._world.context.started_at)
        return self._world.clock.wall() - heard >= VISIBILITY

    # --- at the end

    def check_end(self) -> None:
        """All that can be done is done, and nothing is left over. Raises Violation."""
        self.processes.take(self._world.machines, self.history.lives)
        for row in self._conn.execute(_ROWS).fetchall():
            self._check_told(row, self.history.lives[row[0]])
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
