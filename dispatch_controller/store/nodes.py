"""The table `nodes`. `enabled` is the operator's switch: only the operator's command writes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any

from dispatch_controller.core.times import iso, parse_iso
from dispatch_controller.model import Node
from dispatch_controller.store.tasks import number, whole
from dispatch_controller.store.writer import Connection


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What nodes.json says of a node and the table has a column for."""

    name: str
    ssh_host: str | None
    slots: int
    api_mode: str
    work_dir: str
    executor: str
    priority: int


def all_nodes(conn: Connection, *, reputation: bool = True) -> list[Node]:
    """Return the nodes by name; `reputation` False where that table does not exist."""
    if reputation:
        rows = conn.execute(
            "SELECT n.*, r.quarantined AS is_out, r.quarantine_reason AS out_for FROM nodes n"
            " LEFT JOIN node_reputation r ON r.node = n.name"
            " WHERE n.name IS NOT NULL ORDER BY n.name"
        )
    else:
        rows = conn.execute(
            "SELECT *, 0 AS is_out, NULL AS out_for FROM nodes WHERE name IS NOT NULL ORDER BY name"
        )
    return [_node(_columns(row)) for row in rows]


_COLUMNS = (
    "name", "ssh_host", "slots", "api_mode", "work_dir", "running_count", "last_seen", "enabled",
    "executor", "priority", "is_out", "out_for",
)  # fmt: skip
_columns: Callable[[sqlite3.Row], tuple[object, ...]] = itemgetter(*_COLUMNS)


@lru_cache(maxsize=1024)  # every pass reads them all, and hardly one has changed
def _node(columns: tuple[object, ...]) -> Node:
    row: dict[str, Any] = dict(zip(_COLUMNS, columns, strict=True))

    def text(name: str, default: str) -> str:
        return default if row[name] is None else str(row[name])

    enabled = row["enabled"]
    return Node(
        name=row["name"],
        ssh_host=row["ssh_host"],
        slots=8 if row["slots"] is None else whole(row["slots"], 0),
        api_mode=text("api_mode", "direct"),
        work_dir=text("work_dir", "~/dispatch"),
        running_count=whole(row["running_count"], 0),
        last_seen=parse_iso(row["last_seen"]),
        enabled=enabled is None or bool(number(enabled)),  # a word in its place is no yes
        executor=text("executor", "glm"),
        priority=whole(row["priority"], 2),
        quarantined=bool(row["is_out"]),
        quarantine_reason=row["out_for"],
    )


_CONFIGURED = ("ssh_host", "slots", "api_mode", "work_dir", "executor", "priority")


def differ(conn: Connection, configs: Sequence[NodeConfig]) -> bool:
    """Whether `sync` would change anything."""
    rows = {row["name"]: row for row in conn.execute("SELECT * FROM nodes")}
    return any(
        config.name not in rows
        or any(rows[config.name][name] != getattr(config, name) for name in _CONFIGURED)
        for config in configs
    )


def sync(conn: Connection, configs: Sequence[NodeConfig]) -> list[str]:
    """Insert and update the nodes of nodes.json; return the names of those that changed."""
    columns = ", ".join(_CONFIGURED)
    values = ", ".join(f":{name}" for name in _CONFIGURED)
    updates = ", ".join(f"{name} = excluded.{name}" for name in _CONFIGURED)
    differs = " OR ".join(f"{name} IS NOT excluded.{name}" for name in _CONFIGURED)
    changed = []
    for config in configs:
        updated = conn.execute(
            f"INSERT INTO nodes (name, {columns}) VALUES (:name, {values})"
            f" ON CONFLICT (name) DO UPDATE SET {updates} WHERE {differs}",
            {name: getattr(config, name) for name in ("name", *_CONFIGURED)},
        )
        if updated.rowcount:
            changed.append(config.name)
    return changed


def remove(conn: Connection, name: str) -> bool:
    """Remove a node that left nodes.json; one that holds tasks stays, without slots."""
    removed = conn.execute(
        "DELETE FROM nodes WHERE name = :name AND NOT EXISTS (SELECT 1 FROM tasks"
        " WHERE node = :name AND status IN ('claimed', 'running'))",
        {"name": name},
    )
    if removed.rowcount:
        return True
    conn.execute("UPDATE nodes SET slots = 0 WHERE name = ?", (name,))
    return False


def seen(conn: Connection, contacts: Iterable[tuple[str, float]]) -> None:
    """Set last_seen, by the controller's clock, of nodes that answered."""
    conn.executemany(
        "UPDATE nodes SET last_seen = ? WHERE name = ?",
        [(iso(at), name) for name, at in contacts],
    )


def sync_running_counts(conn: Connection) -> list[str]:
    """Set running_count to the claimed and running tasks of each node; return what was off."""
    held = (
        "(SELECT count(*) FROM tasks t WHERE t.node = nodes.name"
        " AND t.status IN ('claimed', 'running'))"
    )
    off = [
        row["name"]
        for row in conn.execute(
            f"SELECT name FROM nodes WHERE running_count IS NOT {held} ORDER BY name"
        )
    ]
    if off:
        conn.execute(f"UPDATE nodes SET running_count = {held} WHERE running_count IS NOT {held}")
    return off


def set_enabled(conn: Connection, name: str, enabled: bool) -> bool:
    """Throw the operator's switch; return whether there is such a node."""
    return (
        conn.execute("UPDATE nodes SET enabled = ? WHERE name = ?", (int(enabled), name)).rowcount
        > 0
    )
