"""The schema is created whole or checked, and a database that exists is never changed by that."""

from __future__ import annotations

import hashlib
import multiprocessing
import sqlite3
import stat
from pathlib import Path

import pytest

from dispatch_controller.store.connection import get_db
from dispatch_controller.store.schema import (
    TABLES,
    YOUNGER,
    DatabaseUnusable,
    SchemaError,
    prepare,
)

NEEDED = sorted(set(TABLES) - YOUNGER)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build(path: Path, without: frozenset[str] = frozenset(), *, wal: bool = False) -> Path:
    """A database as an older program left it: `without` names tables and table.column."""
    conn = sqlite3.connect(path, isolation_level=None)
    if wal:
        conn.execute("PRAGMA journal_mode=WAL")
    with sqlite3.connect(":memory:") as model:
        for table, columns in TABLES.items():
            model.execute(f"CREATE TABLE {table} ({columns})")
            names = [row[1] for row in model.execute(f"PRAGMA table_info({table})")]
            kept = [name for name in names if f"{table}.{name}" not in without]
            if table not in without:
                conn.execute(f"CREATE TABLE {table} ({', '.join(kept)})")
    model.close()
    conn.close()
    return path


def test_a_file_that_does_not_exist_is_created_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "dispatch.db"
    assert prepare(path) == frozenset()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with get_db(path) as conn:
        found = {row["name"]: row["type"] for row in conn.execute("SELECT * FROM sqlite_master")}
    assert {name for name, kind in found.items() if kind == "table"} >= set(TABLES)
    assert {"idx_tasks_status", "idx_tasks_project", "idx_events_timestamp"} <= set(found)


def test_an_empty_file_gets_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "dispatch.db"
    path.touch()
    assert prepare(path) == frozenset()


def test_a_creation_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "dispatch.db"
    with sqlite3.connect(path, isolation_level=None) as conn:
        conn.execute("PRAGMA journal_mode=WAL")  # the file has a header now, and no table
    conn.close()
    assert path.stat().st_size > 0
    assert prepare(path) == frozenset()


@pytest.mark.parametrize(
    ("column", "default"),
    [
        ("status", "pending"), ("attempt", 0), ("max_retries", 2), ("depends_on", "[]"),
        ("modifies", "[]"), ("exclusive", 0), ("priority", 2), ("visibility_timeout", 300),
        ("estimated_minutes", 30), ("loc_added", 0), ("loc_removed", 0), ("files_changed", 0),
        ("peer_validated", "pending"), ("node", None), ("lease_owner", None), ("spec_hash", None),
        ("duration_seconds", None), ("idempotency_key", None),
    ],
)  # fmt: skip
def test_the_defaults_of_tasks_are_those_of_the_contract(
    db_path: Path, column: str, default: object
) -> None:
    with get_db(db_path) as conn:
        conn.execute("INSERT INTO tasks (id, project, spec_file) VALUES ('T', 'p', 'f')")
        assert conn.execute(f"SELECT {column} FROM tasks").fetchone()[0] == default


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("nodes", {"slots": 8, "api_mode": "direct", "work_dir": "~/dispatch", "running_count": 0,
                   "enabled": 1, "executor": "glm", "priority": 2, "ssh_host": None}),
        ("node_reputation", {"score": 100, "quarantined": 0, "fake_successes": 0}),
    ],
)  # fmt: skip
def test_the_defaults_of_nodes_are_those_of_the_contract(
    db_path: Path, table: str, row: dict[str, object]
) -> None:
    key = "name" if table == "nodes" else "node"
    with get_db(db_path) as conn:
        conn.execute(f"INSERT INTO {table} ({key}) VALUES ('n')")
        found = conn.execute(f"SELECT * FROM {table}").fetchone()
        assert {name: found[name] for name in row} == row


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO tasks (id, project, spec_file, status) VALUES ('T', 'p', 'f', 'cancelled')",
        "INSERT INTO tasks (id, spec_file) VALUES ('T', 'f')",
        "INSERT INTO events (event_type) VALUES ('x')",
        "INSERT INTO file_locks (file_path, task_id) VALUES ('a', 'T')",
        "INSERT INTO guardian_events (check_type, status) VALUES ('x', 'open')",
    ],
)
def test_the_constraints_of_the_contract_hold(db_path: Path, sql: str) -> None:
    with get_db(db_path) as conn, pytest.raises(sqlite3.IntegrityError):
        conn.execute(sql)


def test_a_prepared_database_is_taken_as_it_is(db_path: Path) -> None:
    before = digest(db_path)
    assert prepare(db_path) == frozenset()
    assert digest(db_path) == before


def test_more_columns_indexes_and_tables_are_left_alone(tmp_path: Path) -> None:
    path = build(tmp_path / "dispatch.db")
    with sqlite3.connect(path) as conn:
        conn.execute("ALTER TABLE tasks ADD COLUMN colour TEXT")
        conn.execute("CREATE TABLE theirs (a)")
        conn.execute("CREATE INDEX theirs_a ON theirs(a)")
    conn.close()
    before = digest(path)
    assert prepare(path) == frozenset()
    assert digest(path) == before


@pytest.mark.parametrize("wal", [False, True])
def test_an_error_names_everything_that_is_missing_and_nothing_is_written(
    tmp_path: Path, wal: bool
) -> None:
    missing = frozenset({"tasks.lease_owner", "tasks.spec_hash", "nodes.executor", "file_locks"})
    path = build(tmp_path / "dispatch.db", missing, wal=wal)
    before = digest(path)
    with pytest.raises(SchemaError) as caught:
        prepare(path)
    assert caught.value.missing == [
        "column tasks.spec_hash",
        "column tasks.lease_owner",
        "table file_locks",
        "column nodes.executor",
    ]
    for name in caught.value.missing:
        assert name in str(caught.value)
    assert str(path) in str(caught.value)
    assert digest(path) == before
    wal_file = path.with_name("dispatch.db-wal")
    assert not wal_file.exists() or wal_file.stat().st_size == 0


@pytest.mark.parametrize("table", NEEDED)
def test_no_needed_table_may_be_absent(tmp_path: Path, table: str) -> None:
    with pytest.raises(SchemaError) as caught:
        prepare(build(tmp_path / "dispatch.db", frozenset({table})))
    assert caught.value.missing == [f"table {table}"]


@pytest.mark.parametrize("table", sorted(YOUNGER))
def test_each_younger_table_may_be_absent_and_is_named(tmp_path: Path, table: str) -> None:
    path = build(tmp_path / "dispatch.db", frozenset({table}))
    before = digest(path)
    assert prepare(path) == {table}
    assert digest(path) == before


def test_all_younger_tables_may_be_absent_but_not_a_column_of_theirs(tmp_path: Path) -> None:
    assert prepare(build(tmp_path / "old.db", YOUNGER)) == YOUNGER
    with pytest.raises(SchemaError, match=r"column node_reputation\.score"):
        prepare(build(tmp_path / "odd.db", frozenset({"node_reputation.score"})))


def test_names_of_columns_are_compared_as_sqlite_does(tmp_path: Path) -> None:
    path = tmp_path / "dispatch.db"
    build(path, frozenset({"nodes"}))
    with sqlite3.connect(path) as conn:
        conn.execute(f"CREATE TABLE Nodes ({TABLES['nodes'].replace('ssh_host', 'SSH_Host')})")
    conn.close()
    assert prepare(path) == frozenset()


def test_a_file_that_is_no_database_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "dispatch.db"
    path.write_text("these are not the rows you are looking for\n" * 50)
    before = digest(path)
    with pytest.raises(DatabaseUnusable, match="not a database"):
        prepare(path)
    assert digest(path) == before


def test_two_programs_that_create_it_at_once_both_find_it_whole(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path = tmp_path / "dispatch.db"
    with context.Pool(2) as pool:
        assert pool.map(prepare, [path] * 4, chunksize=1) == [frozenset()] * 4
