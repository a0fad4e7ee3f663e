"""The schema of dispatch.db: created whole where there is none, checked where there is one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dispatch_controller.store.connection import ask_until_free, get_db

TABLES = {
    "tasks": """
        id TEXT PRIMARY KEY,
        project TEXT NOT NULL,
        spec_file TEXT NOT NULL,
        spec_hash TEXT,
        status TEXT DEFAULT 'pending' CHECK (status IN
            ('pending', 'claimed', 'running', 'completed', 'failed', 'deadletter')),
        node TEXT,
        pid INTEGER,
        attempt INTEGER DEFAULT 0,
        max_retries INTEGER DEFAULT 2,
        started_at TEXT,
        completed_at TEXT,
        collected_at TEXT,
        heartbeat_at TEXT,
        error TEXT,
        log_file TEXT,
        duration_seconds REAL,
        depends_on TEXT DEFAULT '[]',
        modifies TEXT DEFAULT '[]',
        exclusive INTEGER DEFAULT 0,
        priority INTEGER DEFAULT 2,
        lease_owner TEXT,
        lease_expires_at INTEGER,
        visibility_timeout INTEGER DEFAULT 300,
        idempotency_key TEXT,
        updated_at INTEGER,
        estimated_minutes INTEGER DEFAULT 30,
        artifact_hash TEXT,
        artifact_patch TEXT,
        loc_added INTEGER DEFAULT 0,
        loc_removed INTEGER DEFAULT 0,
        files_changed INTEGER DEFAULT 0,
        peer_validated TEXT DEFAULT 'pending',
        peer_node TEXT,
        peer_result TEXT""",
    "file_locks": """
        file_path TEXT NOT NULL,
        task_id TEXT NOT NULL,
        locked_at TEXT NOT NULL,
        PRIMARY KEY (file_path, task_id)""",
    "nodes": """
        name TEXT PRIMARY KEY,
        ssh_host TEXT,
        slots INTEGER DEFAULT 8,
        api_mode TEXT DEFAULT 'direct',
        work_dir TEXT DEFAULT '~/dispatch',
        running_count INTEGER DEFAULT 0,
        last_seen TEXT,
        enabled INTEGER DEFAULT 1,
        executor TEXT DEFAULT 'glm',
        priority INTEGER DEFAULT 2""",
    "events": """
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        timestamp TEXT NOT NULL,
        task_id TEXT,
        event_type TEXT,
        node TEXT,
        details TEXT""",
    "guardian_events": """
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        timestamp TEXT DEFAULT (datetime('now')),
        check_type TEXT NOT NULL,
        issue_key TEXT,
        severity INTEGER,
        status TEXT CHECK (status IN ('detected', 'fixing', 'fixed', 'failed', 'rolled_back')),
        fix_attempts INTEGER DEFAULT 0,
        details TEXT,
        node TEXT""",
    "node_reputation": """
        node TEXT PRIMARY KEY,
        score INTEGER DEFAULT 100,
        total_tasks INTEGER DEFAULT 0,
        passed_validations INTEGER DEFAULT 0,
        failed_validations INTEGER DEFAULT 0,
        fake_successes INTEGER DEFAULT 0,
        last_updated TEXT,
        quarantined INTEGER DEFAULT 0,
        quarantine_reason TEXT,
        quarantine_at TEXT""",
    "peer_validations": """
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        task_id TEXT NOT NULL,
        project TEXT NOT NULL,
        executor_node TEXT NOT NULL,
        validator_node TEXT,
        status TEXT DEFAULT 'pending',
        result TEXT,
        created_at TEXT,
        completed_at TEXT""",
}

INDEXES = (
    "CREATE INDEX idx_tasks_status ON tasks(status)",
    "CREATE INDEX idx_tasks_project ON tasks(project)",
    "CREATE INDEX idx_events_timestamp ON events(timestamp)",
)

YOUNGER = frozenset({"guardian_events", "node_reputation", "peer_validations"})
"""Tables that an existing database may lack: what would use them is off."""


class DatabaseUnusable(Exception):
    """The database cannot be used as it is; the text names the file and says what to do."""


class SchemaError(DatabaseUnusable):
    """The database lacks what the controller needs; nothing was written to it."""

    def __init__(self, path: Path, missing: list[str]) -> None:
        super().__init__(
            f"{path} is not a dispatch database this controller can use: missing "
            + ", ".join(missing)
            + ". Its schema is never changed by the controller; restore a backup, or move the file"
            " away and a new one is created."
        )
        self.missing = missing


def prepare(path: Path) -> frozenset[str]:
    """Create the schema where the file is absent or empty (or has no table), else check it.

    Returns the younger tables that an existing database lacks. Raises SchemaError, naming every
    table and column missing, and DatabaseUnusable where the file is no database, or is damaged,
    or cannot be written.
    """
    try:
        if not path.exists():
            path.touch(mode=0o600)
        if path.stat().st_size == 0 or _has_no_tables(path):
            _create(path)
        with _look(path) as conn:
            return _check(conn, path)
    except (sqlite3.Error, OSError) as error:
        raise DatabaseUnusable(
            f"{path}: {error}; `dispatch-controller doctor` says what to do"
        ) from error


def _has_no_tables(path: Path) -> bool:
    """Whether a creation was cut off after SQLite had made the file and before its COMMIT."""
    with _look(path) as conn:
        return conn.execute("SELECT 1 FROM sqlite_master").fetchone() is None


@contextmanager
def _look(path: Path) -> Iterator[sqlite3.Connection]:
    """Open without writing anything, not even the journal mode: the file may not be ours."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    conn = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=0)
    try:
        conn.execute("BEGIN")
        ask_until_free(conn, "SELECT 1 FROM sqlite_master")  # from here on: one snapshot
        yield conn
    finally:
        conn.close()


def _create(path: Path) -> None:
    with get_db(path) as conn:
        conn.execute("BEGIN IMMEDIATE")
        if conn.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            _execute_schema(conn)
        conn.execute("COMMIT")


def _execute_schema(conn: sqlite3.Connection) -> None:
    for name, columns in TABLES.items():
        conn.execute(f"CREATE TABLE {name} ({columns})")
    for index in INDEXES:
        conn.execute(index)


def _check(conn: sqlite3.Connection, path: Path) -> frozenset[str]:
    missing, absent = missing_parts(conn)
    if missing:
        raise SchemaError(path, missing)
    return absent


def missing_parts(conn: sqlite3.Connection) -> tuple[list[str], frozenset[str]]:
    """Return what the controller needs and the database lacks, and the younger tables it lacks."""
    model = sqlite3.connect(":memory:")
    try:
        _execute_schema(model)
        wanted = {table: _columns(model, table) for table in TABLES}
    finally:
        model.close()
    missing: list[str] = []
    absent: set[str] = set()
    for table, columns in wanted.items():
        have = _columns(conn, table)
        if not have and table in YOUNGER:
            absent.add(table)
        elif not have:
            missing.append(f"table {table}")
        else:
            missing += [f"column {table}.{name}" for name in columns if name not in have]
    return missing, frozenset(absent)


def _columns(conn: sqlite3.Connection, table: str) -> list[str]:
    return [row[1].lower() for row in conn.execute(f"PRAGMA table_info({table})")]
