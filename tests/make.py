"""Values for tests: everything has a default that means nothing in particular."""

# ruff: noqa: ANN401 - fields are passed on to `replace`, which knows their types

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dispatch_controller.model import Node, Observation, RunState, SpecExtras, Task, TaskStatus
from dispatch_controller.store.schema import TABLES
from dispatch_controller.store.writer import Connection

NOW = 1_750_000_000.0
LEASE = "n1:0000abcd"

_TASK = Task(
    id="T1",
    project="p",
    spec_file="/specs/p/T1.md",
    spec_hash=None,
    status=TaskStatus.PENDING,
    node=None,
    pid=None,
    attempt=0,
    max_retries=2,
    started_at=None,
    completed_at=None,
    heartbeat_at=None,
    error=None,
    log_file=None,
    duration_seconds=None,
    depends_on=(),
    modifies=(),
    exclusive=False,
    priority=2,
    lease_owner=None,
    lease_expires_at=None,
    visibility_timeout=300,
    updated_at=None,
    estimated_minutes=30,
)
_NODE = Node("n1", None, 2, "direct", "~/dispatch", 0, None, True, "glm", 2)
_SEEN = Observation("n1", "p", "T1", "T1", LEASE, 1, RunState.RUNNING, alive=True)


def task(id: str = "T1", **fields: Any) -> Task:
    return replace(_TASK, id=id, **{"spec_file": f"/specs/p/{id}.md", **fields})


def held(id: str = "T1", **fields: Any) -> Task:
    """A running task on n1, in its first attempt, unless told otherwise."""
    running = {
        "status": TaskStatus.RUNNING,
        "node": "n1",
        "attempt": 1,
        "lease_owner": LEASE,
        "started_at": NOW - 600,
    }
    return task(id, **{**running, **fields})


def node(name: str = "n1", **fields: Any) -> Node:
    return replace(_NODE, name=name, **fields)


def seen(**fields: Any) -> Observation:
    return replace(_SEEN, **fields)


def extras(executor: str = "glm") -> SpecExtras:
    return SpecExtras("hash", executor, None, 120)


def insert_task(conn: Connection, /, id: str | None = "T1", **columns: Any) -> None:
    """Insert a row as any program might: lists become JSON, the rest is taken as it is."""
    values: Mapping[str, Any] = {"project": "p", "spec_file": f"/specs/p/{id}.md", **columns}
    _insert(conn, "tasks", {"id": id, **values})


def insert_held(conn: Connection, /, id: str = "T1", **columns: Any) -> None:
    """A running row on n1, in its first attempt, unless told otherwise."""
    running = {"status": "running", "node": "n1", "attempt": 1, "lease_owner": LEASE}
    insert_task(conn, id, **{**running, "lease_expires_at": int(NOW) + 300, **columns})


def insert_node(conn: Connection, /, name: str | None = "n1", **columns: Any) -> None:
    _insert(conn, "nodes", {"name": name, **columns})


def _insert(conn: Connection, table: str, values: Mapping[str, Any]) -> None:
    plain = {k: json.dumps(v) if isinstance(v, list | tuple) else v for k, v in values.items()}
    names = ", ".join(plain)
    marks = ", ".join(f":{name}" for name in plain)
    conn.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", plain)


def memory() -> Connection:
    """A dispatch.db in memory, as the store would open it."""
    conn = sqlite3.connect(":memory:", isolation_level=None)
    conn.row_factory = sqlite3.Row
    for name, columns in TABLES.items():
        conn.execute(f"CREATE TABLE {name} ({columns})")
    return Connection(conn)
