"""The way of the five old processes, kept to be measured against: a commit per write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dispatch_controller.core.times import iso
from dispatch_controller.store.connection import get_db


def one_by_one(path: Path, writes: int) -> None:
    """Write so many rows, each with its own connection and commit."""
    for number in range(writes):
        with get_db(path) as conn:
            conn.execute("BEGIN IMMEDIATE")
            conn.execute("INSERT INTO nodes (name) VALUES (?)", (f"plain-{number}",))
            conn.execute("COMMIT")


def fill(path: Path, tasks: int, nodes: int) -> None:
    """Fill a new database with pending tasks, a tenth of them with two open dependencies."""
    with get_db(path) as conn:
        conn.execute("BEGIN IMMEDIATE")
        conn.executemany(
            "INSERT INTO nodes (name, slots, executor) VALUES (?, 8, 'shell')",
            ((f"node{number:03}",) for number in range(nodes)),
        )
        conn.executemany(
            "INSERT INTO tasks (id, project, spec_file, depends_on, modifies, priority)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                (
                    f"T{number:06}", f"p{number % 12}", "spec.md",
                    f'["T{number - 1:06}", "T{number - 7:06}"]' if number % 10 == 9 else "[]",
                    f'["src/module{number % 5000}/file{number}.py"]', number % 4,
                )
                for number in range(tasks)
            ),
        )  # fmt: skip
        conn.execute("COMMIT")


def fill_running(path: Path, tasks: Mapping[str, Sequence[str]], now: float) -> None:
    """Fill a new database with nodes (name to tasks) and what runs on them since `now`."""
    with get_db(path) as conn:
        conn.execute("BEGIN IMMEDIATE")
        conn.executemany(
            "INSERT INTO nodes (name, slots, executor) VALUES (?, ?, 'shell')",
            ((node, len(running)) for node, running in tasks.items()),
        )
        conn.executemany(
            "INSERT INTO tasks (id, project, spec_file, modifies, status, node, attempt,"
            " lease_owner, lease_expires_at, started_at) VALUES"
            " (?, 'p', 'spec.md', ?, 'running', ?, 1, ?, ?, ?)",
            (
                (task, f'["{task}"]', node, f"{node}:{task}", int(now) + 300, iso(now))
                for node, running in tasks.items()
                for task in running
            ),
        )
        conn.execute("COMMIT")
