"""Tables as functions of a connection: what neighbours left in them is read leniently."""

# ruff: noqa: ANN401 - details are passed on to SQL

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatch_controller.core.plan import Plan, SpecColumns, SpecEvent
from dispatch_controller.core.reports import EndedByUs
from dispatch_controller.core.retry import Failure, History
from dispatch_controller.core.times import iso
from dispatch_controller.model import Cause, TaskStatus
from dispatch_controller.store import (
    checkpoint,
    endings,
    events,
    file_locks,
    history,
    specs,
    tasks,
    transitions,
)
from dispatch_controller.store.connection import get_db
from dispatch_controller.store.tasks import Filter, strings
from dispatch_controller.store.writer import Connection
from tests.make import LEASE, NOW, held, insert_held, insert_task, memory


@pytest.fixture
def conn() -> Iterator[Connection]:
    conn = memory()
    yield conn
    conn._conn.close()


# tasks


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ('["a", "b"]', ("a", "b")),
        (' [ "a" ] ', ("a",)),
        ("[]", ()),
        ("", ()),
        (None, ()),
        (b'["a"]', ("a",)),
        ("null", None),
        ('"a"', None),
        ('{"a": 1}', None),
        ("[1]", None),
        ('["a", null]', None),
        ('["a"', None),
        ("a, b", None),
        ("['a']", None),
        (5, None),
        (b"\xff", None),
        ("[" * 100_000, None),
    ],
)
def test_a_list_of_strings_or_nothing(column: object, found: tuple[str, ...] | None) -> None:
    assert strings(column) == found


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("depends_on", "oops", None),
        ("depends_on", None, ()),
        ("modifies", "oops", ()),
        ("modifies", '["a.py"]', ("a.py",)),
        ("attempt", None, 0),
        ("attempt", "two", 0),
        ("attempt", "2", 2),
        ("max_retries", None, 2),
        ("max_retries", "many", 2),
        ("max_retries", 0, 0),
        ("priority", None, 2),
        ("priority", "high", 2),
        ("priority", 0, 0),
        ("priority", 1.5, 1),
        ("priority", float("inf"), 2),
        ("visibility_timeout", None, 300),
        ("visibility_timeout", 0, 300),
        ("visibility_timeout", 900, 900),
        ("estimated_minutes", None, 30),
        ("estimated_minutes", "x", 30),
        ("exclusive", None, False),
        ("exclusive", 1, True),
        ("pid", "4711", 4711),
        ("pid", "none", None),
        ("duration_seconds", "12.5", 12.5),
        ("duration_seconds", "long", None),
        ("lease_expires_at", "2026-01-01T00:00:00", None),
        ("lease_expires_at", 5, 5),
        ("updated_at", "now", None),
        ("started_at", "2025-06-15T15:06:40Z", 1_750_000_000.0),
        ("started_at", "2025-06-15T17:06:40+02:00", 1_750_000_000.0),
        ("started_at", "yesterday", None),
        ("heartbeat_at", "", None),
        ("completed_at", 5, None),
        ("error", "boom", "boom"),
        ("error", b"boom", "b'boom'"),
        ("lease_owner", None, None),
    ],
)
def test_columns_that_other_programs_filled(
    conn: Connection, name: str, column: object, value: object
) -> None:
    columns: dict[str, Any] = {name: column}
    insert_task(conn, **columns)
    row = tasks.get(conn, "T1")
    assert row is not None
    assert getattr(row, name) == value
    assert not row.leased(NOW)
    json.dumps([row.attempt + 1, row.priority + 1, row.visibility_timeout + 1])


def test_a_naive_time_is_local(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        insert_task(conn, started_at="2025-06-15T11:06:40", heartbeat_at="2025-06-15 11:06:40")
        row = tasks.get(conn, "T1")
        assert row is not None
        assert row.started_at == row.heartbeat_at == 1_750_000_000
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_state_that_is_none_of_ours_is_left_alone(conn: Connection) -> None:
    insert_task(conn, status=None)
    row = tasks.get(conn, "T1")
    assert row is not None
    assert row.status is TaskStatus.DEADLETTER
    assert not transitions.cancel(conn, NOW, "T1", lease=None, why="x")
    assert tasks.statuses(conn, ["T1", "T2"]) == {"T1": TaskStatus.DEADLETTER}
    assert specs.known(conn)[0].status is TaskStatus.DEADLETTER


def test_a_text_cut_off_within_a_character_is_read(db_path: Path) -> None:
    with get_db(db_path) as raw:
        conn = Connection(raw)
        insert_held(conn)
        conn.execute("UPDATE tasks SET error = CAST(x'c3a9c3' AS TEXT)")
        (row,) = tasks.in_status(conn, TaskStatus.RUNNING)
        assert row.error == "é\ufffd"


def test_half_a_surrogate_pair_is_written_as_a_question_mark(db_path: Path) -> None:
    with get_db(db_path) as raw:
        conn = Connection(raw)
        insert_held(conn)
        lost = transitions.Ending(completed=False, error="bad \udce9 name")
        assert transitions.finish(conn, NOW, "T1", LEASE, 1, lost, {"files": ["\ud800"]})
        assert tasks.get(conn, "\ud800") is None
        row = tasks.get(conn, "T1")
        assert row is not None
        assert row.error == "bad ? name"
        assert events.of_task(conn, "T1")[0].details["files"] == ["?"]


def test_lists_counts_and_filters(conn: Connection) -> None:
    insert_task(conn, "T1", project="p", error="Boom")
    insert_task(conn, "T2", project="q", status="completed", node="n1")
    insert_held(conn, "T3", project="q")
    assert [row.id for row in tasks.in_status(conn, *TaskStatus)] == ["T1", "T2", "T3"]
    assert tasks.in_status(conn) == []
    assert set(tasks.by_ids(conn, ["T3", "T1", "T9"])) == {"T1", "T3"}
    assert tasks.counts(conn) == {
        "pending": 1, "claimed": 0, "running": 1, "completed": 1, "failed": 0, "deadletter": 0,
    }  # fmt: skip
    assert tasks.spec_files(conn) == ["/specs/p/T1.md", "/specs/p/T3.md"]
    assert [row["id"] for row in tasks.page(conn, Filter(project="q"), 1, 1)[0]] == ["T3"]
    assert tasks.page(conn, Filter(q="Boom"), 9, 0)[1] == 1
    assert tasks.page(conn, Filter(status="completed", node="n1"), 9, 0)[1] == 1


# events


@pytest.mark.parametrize(
    ("details", "found"),
    [
        ('{"a": 1}', {"a": 1}),
        (None, {}),
        ("", {}),
        ("done", {"text": "done"}),
        ("[1, 2]", {"value": [1, 2]}),
        ("5", {"value": 5}),
        ("null", {"value": None}),
        (b"\xff", {"text": "b'\\xff'"}),
        ("[" * 100_000, {"text": "[" * 100_000}),
    ],
)
def test_details_of_any_form_are_read(conn: Connection, details: object, found: object) -> None:
    conn.execute(
        "INSERT INTO events (timestamp, task_id, event_type, details) VALUES ('t', 'T1', NULL, ?)",
        (details,),
    )
    (event,) = events.of_task(conn, "T1")
    assert (event.event_type, event.details) == ("", found)
    json.dumps(dict(event.details))


def test_events_are_appended_and_paged(conn: Connection) -> None:
    for n in range(5):
        events.add(conn, NOW + n, f"e{n % 2}", task_id=f"T{n % 3}", node="n1", n=n, text="日本")
    assert [e.id for e in events.since(conn, 2, 2)] == [3, 4]
    assert [e.id for e in events.page(conn, None, 2)] == [5, 4]
    assert [e.id for e in events.page(conn, 4, 9)] == [3, 2, 1]
    assert [e.id for e in events.of_task(conn, "T0", limit=1)] == [4]
    assert events.last_id(conn) == 5
    found = events.of_types(conn, ["T0", "T9"], ["e0"])
    assert {key: [e.id for e in value] for key, value in found.items()} == {"T0": [1], "T9": []}
    first = events.since(conn, 0, 1)[0]
    assert (first.timestamp, first.details) == (iso(NOW), {"n": 0, "text": "日本"})


# history


def told(conn: Connection, event_type: str, **details: Any) -> None:
    events.add(conn, NOW, event_type, task_id="T1", **details)


def test_the_history_of_a_failed_task_is_what_its_events_say(conn: Connection) -> None:
    insert_task(conn, "T1", status="failed")
    insert_task(conn, "T2", status="failed")
    insert_task(conn, "T3")
    told(conn, "task_failed", cause="node", reason="disk_full", exit_code=1)
    told(conn, "attempt_refunded", cause="node")
    told(conn, "task_failed", cause="task", reason="exit", exit_code=2)
    told(conn, "task_retry", extended="timeout")
    found = {row.id: past for row, past in history.failed(conn)}
    assert found == {
        "T1": History(
            refunds=1,
            failures=(Failure(Cause.NODE, "disk_full", 1), Failure(Cause.TASK, "exit", 2)),
            extended_for_timeout=True,
        ),
        "T2": History(),
    }


def test_what_was_before_the_operators_last_retry_does_not_count(conn: Connection) -> None:
    insert_task(conn, "T1", status="failed")
    told(conn, "task_failed", cause="task")
    told(conn, "attempt_refunded")
    told(conn, "task_retry", extended="timeout")
    told(conn, "operator_retry")
    told(conn, "task_failed", cause="spec", reason="empty_run", exit_code=0)
    ((_, past),) = history.failed(conn)
    assert past == History(0, (Failure(Cause.SPEC, "empty_run", 0),), False)


@pytest.mark.parametrize(
    "details",
    ["lost", "[]", "{}", '{"cause": "the weather"}', '{"cause": ["task"]}', '{"cause": {}}',
     '{"reason": 5, "exit_code": "1"}', None],
)  # fmt: skip
def test_a_failure_that_another_program_told_is_of_unknown_cause(
    conn: Connection, details: str | None
) -> None:
    insert_task(conn, "T1", status="failed")
    conn.execute(
        "INSERT INTO events (timestamp, task_id, event_type, details)"
        " VALUES ('t', 'T1', 'task_failed', ?)",
        (details,),
    )
    ((_, past),) = history.failed(conn)
    assert past.failures == (Failure(Cause.UNKNOWN, None, None),)


# endings


def test_a_wish_to_end_stands_while_its_lease_is_held(conn: Connection) -> None:
    assert endings.standing(conn) == {}
    insert_held(conn, "T1")
    insert_held(conn, "T2", lease_owner="n1:22222222")
    insert_held(conn, "T3", lease_owner="n1:33333333", status="failed")
    stuck = EndedByUs(Cause.TASK, "stuck")
    cancelled = EndedByUs(Cause.OPERATOR, "cancelled", cancelled=True)
    endings.add(conn, NOW, held("T1", lease_owner="n1:older111"), cancelled)
    endings.add(conn, NOW, held("T1"), stuck)
    endings.add(conn, NOW, held("T1"), cancelled)
    endings.add(conn, NOW, held("T3", lease_owner="n1:33333333"), stuck)
    assert endings.standing(conn) == {LEASE: cancelled}


def test_tasks_without_a_lease_are_ended_each_by_itself(conn: Connection) -> None:
    insert_held(conn, "T1", lease_owner=None)
    insert_held(conn, "T2", lease_owner=None)
    endings.add(conn, NOW, held("T1", lease_owner=None), EndedByUs(Cause.TASK, "stuck"))
    assert endings.standing(conn) == {"T1": EndedByUs(Cause.TASK, "stuck")}


def test_a_wish_that_cannot_be_read_stops_no_start(conn: Connection) -> None:
    insert_held(conn)
    events.add(conn, NOW, "ending", task_id="T1", lease=LEASE, cause="whim")
    assert endings.standing(conn)[LEASE].cause is Cause.UNKNOWN


# file_locks


def test_locks_go_when_their_task_is_not_at_work(conn: Connection) -> None:
    insert_task(conn, None, status="running")
    insert_held(conn, "RUN")
    insert_held(conn, "CLAIM", status="claimed")
    for n, status in enumerate(("pending", "completed", "failed", "deadletter")):
        insert_task(conn, f"T{n}", status=status)
    names = ["RUN", "CLAIM", "T0", "T1", "T2", "T3", "nobody"]
    file_locks.take(conn, NOW, [(f"{name}.py", name) for name in names])
    file_locks.take(conn, NOW, [("RUN.py", "RUN")])
    assert file_locks.release_stale(conn) == ["T0", "T1", "T2", "T3", "nobody"]
    assert file_locks.release_stale(conn) == []
    left = file_locks.all_locks(conn)
    assert [(lock.file_path, lock.project) for lock in left] == [
        ("CLAIM.py", "p"), ("RUN.py", "p"),
    ]  # fmt: skip
    file_locks.release(conn, "RUN")
    assert [lock.task_id for lock in file_locks.all_locks(conn)] == ["CLAIM"]


# specs


def test_a_plan_leaves_rows_that_have_moved_on(conn: Connection) -> None:
    insert_held(conn, "RUN", depends_on=[], spec_hash="h1")
    insert_task(conn, "OLD", depends_on=["x"], spec_hash=None)
    new = SpecColumns("NEW", "p", "/f", "h", (), ("a",), False, 2, 2, 30)
    run = SpecColumns("RUN", "p", "/g", "h2", (), ("a",), False, 2, 2, 30)
    specs.write_plan(
        conn,
        NOW,
        Plan(
            inserts=(new,),
            updates=(run,),
            links=(("OLD", ("RUN",)), ("RUN", ("OLD",))),
            hashes=(("OLD", "h3"), ("RUN", "h3")),
            events=(SpecEvent("OLD", "spec_gone", {"spec_file": "/f"}),),
        ),
    )
    found = {row.id: row for row in specs.known(conn)}
    assert list(found) == ["NEW", "OLD", "RUN"]
    assert (found["RUN"].spec_hash, found["RUN"].depends_on) == ("h1", ())
    assert (found["OLD"].spec_hash, found["OLD"].depends_on) == ("h3", ("RUN",))
    assert [e.event_type for e in events.since(conn, 0, 9)] == ["task_registered", "spec_gone"]


def test_odd_rows_do_not_stop_a_registration(conn: Connection) -> None:
    insert_task(
        conn, status=None, depends_on="oops", modifies="oops", priority="high", max_retries="x",
        estimated_minutes=None, exclusive=None,
    )  # fmt: skip
    (row,) = specs.known(conn)
    assert (row.depends_on, row.modifies, row.priority, row.max_retries, row.exclusive) == (
        None, (), 2, 2, False,
    )  # fmt: skip
    assert row.estimated_minutes == 30


# the connection, and the write-ahead log


def test_every_connection_is_set_up_as_the_contract_says(db_path: Path) -> None:
    with get_db(db_path) as conn:
        pragmas = {
            name: conn.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "busy_timeout", "synchronous")
        }
        assert pragmas == {"journal_mode": "wal", "busy_timeout": 30_000, "synchronous": 2}
        assert conn.row_factory is sqlite3.Row


def test_what_is_not_committed_is_rolled_back_at_the_end(db_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), get_db(db_path) as conn:
        conn.execute("BEGIN IMMEDIATE")
        insert_task(Connection(conn))
        1 / 0  # noqa: B018
    with get_db(db_path) as conn:
        assert tasks.get(Connection(conn), "T1") is None


def test_a_missing_file_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError), get_db(tmp_path / "none.db"):
        pass
    assert not (tmp_path / "none.db").exists()


def test_the_log_is_folded_back_without_waiting_for_a_reader(db_path: Path) -> None:
    with get_db(db_path) as reader:
        with get_db(db_path) as conn:
            conn.execute("BEGIN IMMEDIATE")
            for n in range(200):
                insert_task(Connection(conn), f"T{n:03}")
            conn.execute("COMMIT")
        assert checkpoint.wal_size(db_path) > 0
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM tasks").fetchone()[0] == 200
        checkpoint.checkpoint(db_path)
        checkpoint.truncate_wal(db_path)  # the reader is in its way: no error, no waiting
        assert reader.execute("SELECT count(*) FROM tasks").fetchone()[0] == 200
        reader.execute("ROLLBACK")
        checkpoint.truncate_wal(db_path)
        assert checkpoint.wal_size(db_path) == 0
    assert checkpoint.wal_size(db_path) == 0
