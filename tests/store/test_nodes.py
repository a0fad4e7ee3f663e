"""The table `nodes`: read leniently, and `enabled` written by the operator alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dispatch_controller.core.times import iso
from dispatch_controller.model import Node
from dispatch_controller.store import nodes
from dispatch_controller.store.nodes import NodeConfig
from dispatch_controller.store.writer import Connection
from tests.make import NOW, insert_held, insert_node, insert_task, memory

CONFIG = NodeConfig("n1", "host", 4, "proxy", "~/work", "claude", 1)


@pytest.fixture
def conn() -> Iterator[Connection]:
    conn = memory()
    yield conn
    conn._conn.close()


def row(conn: Connection, name: str = "n1") -> dict[str, Any]:
    return dict(conn.execute("SELECT * FROM nodes WHERE name = ?", (name,)).fetchone())


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("slots", None, 8),
        ("slots", 0, 0),
        ("slots", "12", 12),
        ("slots", "many", 0),  # take nothing rather than too much
        ("slots", 4.5, 4),
        ("priority", None, 2),
        ("priority", 0, 0),
        ("priority", "first", 2),
        ("api_mode", None, "direct"),
        ("work_dir", None, "~/dispatch"),
        ("executor", None, "glm"),
        ("executor", 7, "7"),
        ("running_count", None, 0),
        ("running_count", "x", 0),
        ("enabled", None, True),
        ("enabled", 1, True),
        ("enabled", 0, False),
        ("enabled", "0", False),
        ("enabled", "false", False),
        ("enabled", "no", False),
        ("last_seen", None, None),
        ("last_seen", "never", None),
        ("last_seen", iso(NOW), NOW),
        ("last_seen", "2025-06-15T15:06:40Z", NOW),
    ],
)
def test_columns_that_other_programs_filled(
    conn: Connection, name: str, column: object, value: object
) -> None:
    columns: dict[str, Any] = {name: column}
    insert_node(conn, **columns)
    (found,) = nodes.all_nodes(conn)
    assert getattr(found, name) == value


def test_nodes_come_by_name_with_their_reputation(conn: Connection) -> None:
    for name in ("b", "c", "a"):
        insert_node(conn, name)
    insert_node(conn, None)
    conn.execute(
        "INSERT INTO node_reputation (node, quarantined, quarantine_reason) VALUES"
        " ('a', 1, 'score 55'), ('b', 0, 'over'), ('c', NULL, NULL), ('gone', 1, 'x')"
    )
    found = nodes.all_nodes(conn)
    assert [(n.name, n.quarantined, n.quarantine_reason) for n in found] == [
        ("a", True, "score 55"), ("b", False, "over"), ("c", False, None),
    ]  # fmt: skip
    conn.execute("DROP TABLE node_reputation")
    plain = nodes.all_nodes(conn, reputation=False)
    assert [(n.name, n.quarantined) for n in plain] == [("a", False), ("b", False), ("c", False)]


def test_a_column_of_another_program_is_not_taken_for_the_reputation(conn: Connection) -> None:
    conn.execute("ALTER TABLE nodes ADD COLUMN quarantined INTEGER DEFAULT 1")
    insert_node(conn)
    assert [n.quarantined for n in nodes.all_nodes(conn)] == [False]
    assert [n.quarantined for n in nodes.all_nodes(conn, reputation=False)] == [False]


def test_nodes_json_is_taken_over_and_what_it_does_not_own_stays(conn: Connection) -> None:
    insert_node(conn, "n1", enabled=0, last_seen="then", running_count=3)
    assert nodes.differ(conn, [CONFIG])
    assert nodes.sync(conn, [CONFIG]) == ["n1"]
    assert not nodes.differ(conn, [CONFIG])
    assert nodes.sync(conn, [CONFIG]) == []
    assert row(conn) == {
        "name": "n1", "ssh_host": "host", "slots": 4, "api_mode": "proxy", "work_dir": "~/work",
        "executor": "claude", "priority": 1, "enabled": 0, "last_seen": "then",
        "running_count": 3,
    }  # fmt: skip


def test_a_new_node_is_enabled_and_a_null_host_stays_null(conn: Connection) -> None:
    local = NodeConfig("n2", None, 8, "direct", "~/dispatch", "glm", 2)
    assert nodes.sync(conn, [local]) == ["n2"]
    assert not nodes.differ(conn, [local])
    assert nodes.sync(conn, [local]) == []
    assert nodes.all_nodes(conn) == [
        Node("n2", None, 8, "direct", "~/dispatch", 0, None, True, "glm", 2)
    ]


@pytest.mark.parametrize(
    ("status", "removed"),
    [("claimed", False), ("running", False), ("pending", True), ("completed", True),
     ("failed", True), ("deadletter", True)],
)  # fmt: skip
def test_a_node_that_holds_tasks_stays_without_slots(
    conn: Connection, status: str, removed: bool
) -> None:
    insert_node(conn)
    insert_held(conn, status=status)
    assert nodes.remove(conn, "n1") == removed
    assert [n.slots for n in nodes.all_nodes(conn)] == ([] if removed else [0])


def test_last_seen_is_written_for_those_that_answered(conn: Connection) -> None:
    insert_node(conn, "n1")
    insert_node(conn, "n2", last_seen="then")
    nodes.seen(conn, [("n1", NOW), ("gone", NOW)])
    assert (row(conn)["last_seen"], row(conn, "n2")["last_seen"]) == (iso(NOW), "then")


def test_running_counts_are_those_of_claimed_and_running_tasks(conn: Connection) -> None:
    insert_node(conn, "n1", running_count=9)
    insert_node(conn, "n2", running_count=1)
    insert_node(conn, "n3", running_count=None)
    insert_held(conn, "T1", status="claimed")
    insert_held(conn, "T2")
    insert_held(conn, "T3", node="n2")
    insert_held(conn, "T4", status="failed")
    insert_task(conn, "T5", node="n1")
    assert nodes.sync_running_counts(conn) == ["n1", "n3"]
    assert [n.running_count for n in nodes.all_nodes(conn)] == [2, 1, 0]
    assert nodes.sync_running_counts(conn) == []


def test_the_operators_switch(conn: Connection) -> None:
    insert_node(conn)
    assert nodes.set_enabled(conn, "n1", False)
    assert row(conn)["enabled"] == 0
    assert nodes.set_enabled(conn, "n1", True)
    assert row(conn)["enabled"] == 1
    assert not nodes.set_enabled(conn, "gone", True)
