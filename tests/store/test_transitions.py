"""Every transition of scheduling.md is guarded, and tells the history in the same transaction."""

# ruff: noqa: ANN401 - columns are passed on to SQL

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_controller.core.plan import SpecColumns
from dispatch_controller.core.times import iso
from dispatch_controller.model import BACKOFF_OWNER, Cause, TaskStatus
from dispatch_controller.store import events, tasks, transitions
from dispatch_controller.store.transitions import Ending, NewLease
from dispatch_controller.store.writer import Connection
from tests.make import LEASE, NOW, insert_held, insert_task, memory

SPEC = SpecColumns(
    id="T1", project="p", spec_file="/specs/p/T1.md", spec_hash="h2", depends_on=("A",),
    modifies=("a.py",), exclusive=True, priority=0, max_retries=3, estimated_minutes=5,
)  # fmt: skip


@pytest.fixture
def conn() -> Iterator[Connection]:
    conn = memory()
    yield conn
    conn._conn.close()


def everything(conn: Connection) -> dict[str, list[tuple[object, ...]]]:
    return {
        table: [tuple(row) for row in conn.execute(f"SELECT * FROM {table} ORDER BY 1, 2")]
        for table in ("tasks", "events", "file_locks")
    }


def told(conn: Connection) -> list[str]:
    return [event.event_type for event in events.since(conn, 0, 100)]


def column(conn: Connection, name: str, id: str = "T1") -> Any:
    return conn.execute(f"SELECT {name} FROM tasks WHERE id = ?", (id,)).fetchone()[0]


@dataclass(frozen=True)
class Move:
    """A transition: from which states it goes where, and what it tells."""

    do: Callable[..., Any]
    sources: frozenset[str]
    target: str
    event: str
    by_lease: bool = False
    by_attempt: bool = False
    locks_released: bool = False

    def __call__(self, conn: Connection, lease: str = LEASE, attempt: int = 1) -> bool:
        return bool(self.do(conn, lease, attempt))


HELD = frozenset({"claimed", "running"})
DONE = Ending(completed=True, log_file="/log", artifact_hash="x", loc_added=3, files_changed=1)
LOST = Ending(completed=False, error="boom", duration_seconds=5.0, completed_at=NOW - 7)

MOVES = {
    "claim": Move(
        lambda c, lease, n: transitions.claim(
            c, NOW, [NewLease("T1", "n1", "glm", "n1:99999999")],
            frozenset(r[0] for r in c.execute("SELECT id FROM tasks")),
        ),
        frozenset({"pending"}), "claimed", "task_claimed",
    ),
    "confirm": Move(
        lambda c, lease, n: transitions.confirm(c, NOW, "T1", lease, pid=7, log_file="/log"),
        frozenset({"claimed"}), "running", "task_running", by_lease=True,
    ),
    "complete": Move(
        lambda c, lease, n: transitions.finish(c, NOW, "T1", lease, n, DONE, {"gates": {}}),
        HELD, "completed", "task_completed", by_lease=True, by_attempt=True, locks_released=True,
    ),
    "fail": Move(
        lambda c, lease, n: transitions.finish(
            c, NOW, "T1", lease, n, LOST, {"cause": Cause.TASK, "reason": "exit"}
        ),
        HELD, "failed", "task_failed", by_lease=True, by_attempt=True, locks_released=True,
    ),
    "give_back": Move(
        lambda c, lease, n: transitions.give_back(
            c, NOW, "T1", lease, cause=Cause.UNKNOWN, why="gone"
        ),
        HELD, "pending", "task_returned", by_lease=True, locks_released=True,
    ),
    "retry": Move(
        lambda c, lease, n: transitions.retry(
            c, NOW, "T1", n, until=NOW + 120, max_retries=4, why="1 of 4"
        ),
        frozenset({"failed"}), "pending", "task_retry", by_attempt=True,
    ),
    "bury": Move(
        lambda c, lease, n: transitions.bury(c, NOW, "T1", n, cause=Cause.TASK, why="no more"),
        frozenset({"failed"}), "deadletter", "task_deadletter", by_attempt=True,
    ),
    "cancel": Move(
        lambda c, lease, n: transitions.cancel(c, NOW, "T1", lease=lease, why="cancelled"),
        HELD | {"pending", "failed"}, "deadletter", "task_deadletter", locks_released=True,
    ),
    "revive": Move(
        lambda c, lease, n: transitions.revive(c, NOW, "T1"),
        frozenset({"failed", "deadletter"}), "pending", "operator_retry",
    ),
    "update_from_spec": Move(
        lambda c, lease, n: transitions.update_from_spec(c, NOW, SPEC),
        frozenset({"pending"}), "pending", "spec_updated",
    ),
}  # fmt: skip

each_move = pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
each_status = pytest.mark.parametrize("status", [status.value for status in TaskStatus])


def row_in(conn: Connection, status: str, **columns: Any) -> None:
    insert_held(conn, status=status, **columns)
    if status == "pending":
        conn.execute("UPDATE tasks SET lease_owner = NULL, lease_expires_at = NULL")
    conn.execute("INSERT INTO file_locks VALUES ('a.py', 'T1', 'then'), ('b.py', 'T2', 'then')")


@each_move
@each_status
def test_it_happens_from_its_states_alone_and_tells_it_once(
    conn: Connection, move: Move, status: str
) -> None:
    row_in(conn, status)
    before = everything(conn)
    happened = move(conn)
    expected = status in move.sources or (move is MOVES["update_from_spec"] and status == "failed")
    assert happened == expected
    if not expected:
        assert everything(conn) == before
        return
    assert told(conn) == [move.event]
    assert column(conn, "status") == (status if move is MOVES["update_from_spec"] else move.target)
    assert events.of_task(conn, "T1")[0].timestamp == iso(NOW)
    assert column(conn, "updated_at") == int(NOW)
    locks = [row["task_id"] for row in conn.execute("SELECT task_id FROM file_locks ORDER BY 1")]
    assert locks == (["T2"] if move.locks_released else ["T1", "T2"])


@each_move
@each_status
def test_another_lease_changes_nothing(conn: Connection, move: Move, status: str) -> None:
    row_in(conn, status)
    if status not in HELD or not (move.by_lease or move is MOVES["cancel"]):
        return
    before = everything(conn)
    for lease in ("n1:ffffffff", "", "n1", LEASE.upper()):
        assert not move(conn, lease=lease)
    assert everything(conn) == before


@each_move
@each_status
def test_another_attempt_changes_nothing(conn: Connection, move: Move, status: str) -> None:
    row_in(conn, status)
    if not move.by_attempt:
        return
    before = everything(conn)
    for attempt in (0, 2):
        assert not move(conn, attempt=attempt)
    assert everything(conn) == before


@each_move
def test_a_task_that_does_not_exist_changes_nothing(conn: Connection, move: Move) -> None:
    insert_task(conn, "T2")
    before = everything(conn)
    assert not move(conn)
    assert everything(conn) == before


@each_move
def test_a_transition_that_is_rolled_back_leaves_no_event(conn: Connection, move: Move) -> None:
    row_in(conn, sorted(move.sources)[0])
    before = everything(conn)
    conn._conn.execute("BEGIN")
    assert move(conn)
    conn._conn.execute("ROLLBACK")
    assert everything(conn) == before


@each_status
def test_a_row_that_an_old_program_started_has_the_empty_lease(
    conn: Connection, status: str
) -> None:
    row_in(conn, status, lease_owner=None, attempt=None, lease_expires_at=None)
    held = status in HELD
    assert MOVES["give_back"](conn, lease="") == held
    assert not held or column(conn, "status") == "pending"


# What each one leaves in the row.


def test_a_registered_task_is_pending_and_is_never_overwritten(conn: Connection) -> None:
    assert transitions.register(conn, NOW, SPEC)
    assert not transitions.register(conn, NOW + 1, SPEC)
    assert told(conn) == ["task_registered"]
    row = tasks.get(conn, "T1")
    assert row is not None
    assert (row.status, row.attempt, row.depends_on, row.modifies, row.exclusive, row.priority) == (
        TaskStatus.PENDING, 0, ("A",), ("a.py",), True, 0,
    )  # fmt: skip
    assert (row.spec_hash, row.max_retries, row.estimated_minutes) == ("h2", 3, 5)


def test_a_changed_spec_touches_neither_status_attempt_nor_lease(conn: Connection) -> None:
    insert_task(conn, attempt=3, lease_owner=BACKOFF_OWNER, lease_expires_at=5, error="e")
    assert transitions.update_from_spec(conn, NOW, SPEC)
    row = tasks.get(conn, "T1")
    assert row is not None
    assert (row.attempt, row.lease_owner, row.lease_expires_at, row.error) == (
        3, BACKOFF_OWNER, 5, "e",
    )  # fmt: skip
    assert (row.spec_hash, row.modifies) == ("h2", ("a.py",))
    other = SpecColumns(**{n: getattr(SPEC, n) for n in SpecColumns.__slots__} | {"project": "q"})
    assert not transitions.update_from_spec(conn, NOW, other)


def test_a_claim_leases_the_task_for_its_visibility_timeout(conn: Connection) -> None:
    insert_task(
        conn, attempt=1, visibility_timeout=600, error="old", pid=9, heartbeat_at="x",
        completed_at="x", collected_at="x", duration_seconds=1.0,
    )  # fmt: skip
    (claim,) = transitions.claim(
        conn, NOW + 0.5, [NewLease("T1", "n2", "codex", "n2:12345678")], frozenset()
    )
    event = events.of_task(conn, "T1")[0]
    assert (claim.node, claim.executor, claim.lease_owner, claim.attempt, claim.sequence) == (
        "n2", "codex", "n2:12345678", 2, event.id,
    )  # fmt: skip
    assert claim.task.status is TaskStatus.CLAIMED
    assert event.details == {"lease": "n2:12345678", "attempt": 2, "executor": "codex"}
    assert event.node == "n2"
    assert column(conn, "lease_expires_at") == int(NOW) + 600
    assert column(conn, "started_at") == iso(NOW + 0.5)
    for name in ("error", "pid", "heartbeat_at", "completed_at", "collected_at",
                 "duration_seconds"):  # fmt: skip
        assert column(conn, name) is None


@pytest.mark.parametrize(
    ("columns", "claimed"),
    [
        ({}, True),
        ({"lease_owner": BACKOFF_OWNER, "lease_expires_at": int(NOW)}, True),
        ({"lease_owner": BACKOFF_OWNER, "lease_expires_at": int(NOW) + 1}, False),
        ({"lease_owner": "other", "lease_expires_at": int(NOW) + 1}, False),
        ({"lease_owner": "other", "lease_expires_at": None}, True),
        ({"lease_owner": None, "lease_expires_at": int(NOW) + 1}, True),
        ({"lease_owner": "other", "lease_expires_at": "2026-01-01T00:00:00"}, True),
        ({"attempt": None, "visibility_timeout": None}, True),
        ({"attempt": None, "visibility_timeout": 0}, True),
    ],
)
def test_a_live_lease_keeps_the_claim_away(
    conn: Connection, columns: dict[str, Any], claimed: bool
) -> None:
    insert_task(conn, **columns)
    found = transitions.claim(conn, NOW, [NewLease("T1", "n1", "glm", LEASE)], frozenset())
    assert bool(found) == claimed
    if claimed:
        assert found[0].attempt == 1
        assert column(conn, "lease_expires_at") == int(NOW) + 300


def test_where_another_program_claimed_meanwhile_nothing_is_claimed(conn: Connection) -> None:
    insert_task(conn, "T1")
    insert_held(conn, "T2", lease_owner="theirs:1")
    new = [NewLease("T1", "n1", "glm", LEASE)]
    before = everything(conn)
    assert transitions.claim(conn, NOW, new, frozenset()) == []
    assert everything(conn) == before
    assert len(transitions.claim(conn, NOW, new, frozenset({"T2", "T3"}))) == 1


def test_a_claim_takes_what_it_can_in_its_order_and_locks_for_those_alone(
    conn: Connection,
) -> None:
    for n in (3, 1, 2):
        insert_task(conn, f"T{n}")
    conn.execute("UPDATE tasks SET status = 'failed' WHERE id = 'T1'")
    new = [
        NewLease(id, "n1", "glm", f"n1:0000000{id[1]}", locks=(f"{id}.py", 'it\'s "odd"'))
        for id in ("T2", "T1", "T3", "T9")
    ]
    claims = transitions.claim(conn, NOW, new, frozenset())
    assert [claim.task.id for claim in claims] == ["T2", "T3"]
    assert [claim.sequence for claim in claims] == [e.id for e in events.since(conn, 0, 9)]
    locks = conn.execute("SELECT file_path, task_id FROM file_locks ORDER BY 2, 1").fetchall()
    assert [tuple(row) for row in locks] == [
        ("T2.py", "T2"), ("it's \"odd\"", "T2"), ("T3.py", "T3"), ("it's \"odd\"", "T3"),
    ]  # fmt: skip


def test_a_trigger_or_column_of_another_program_does_not_confuse_a_claim(conn: Connection) -> None:
    conn.execute("ALTER TABLE tasks ADD COLUMN sequence INTEGER DEFAULT 77")
    conn.execute(
        "CREATE TRIGGER theirs AFTER UPDATE ON tasks BEGIN INSERT INTO events"
        " (timestamp, task_id, event_type) VALUES ('t', new.id, 'theirs'); END"
    )
    insert_task(conn)
    (claim,) = transitions.claim(conn, NOW, [NewLease("T1", "n1", "glm", LEASE)], frozenset())
    (event,) = events.of_types(conn, ["T1"], ["task_claimed"])["T1"]
    assert claim.sequence == event.id


def test_a_confirmed_start_renews_the_lease_and_starts_the_clock(conn: Connection) -> None:
    insert_held(conn, status="claimed", started_at="before", lease_expires_at=0)
    assert MOVES["confirm"](conn)
    row = conn.execute("SELECT * FROM tasks").fetchone()
    assert (row["pid"], row["log_file"], row["started_at"], row["heartbeat_at"]) == (
        7, "/log", iso(NOW), iso(NOW),
    )  # fmt: skip
    assert row["lease_expires_at"] == int(NOW) + 300


def test_an_end_keeps_who_held_it_and_says_how_it_went(conn: Connection) -> None:
    insert_held(conn, log_file="/first")
    assert MOVES["complete"](conn)
    row = conn.execute("SELECT * FROM tasks").fetchone()
    assert (row["lease_owner"], row["lease_expires_at"], row["node"]) == (LEASE, None, "n1")
    assert (row["error"], row["log_file"], row["artifact_hash"]) == (None, "/log", "x")
    assert (row["loc_added"], row["files_changed"]) == (3, 1)
    assert row["completed_at"] == row["collected_at"] == iso(NOW)
    event = events.of_task(conn, "T1")[0]
    assert event.details == {"lease": LEASE, "attempt": 1, "gates": {}}
    assert event.node == "n1"


def test_a_failure_keeps_its_time_error_and_log(conn: Connection) -> None:
    insert_held(conn, log_file="/first")
    assert MOVES["fail"](conn)
    row = conn.execute("SELECT * FROM tasks").fetchone()
    assert (row["error"], row["log_file"], row["duration_seconds"]) == ("boom", "/first", 5.0)
    assert row["completed_at"] == iso(NOW - 7)


@pytest.mark.parametrize("cause", Cause)
def test_a_cause_that_costs_no_retry_refunds_the_attempt(conn: Connection, cause: Cause) -> None:
    insert_held(conn, "T1")
    insert_held(conn, "T2")
    assert transitions.finish(conn, NOW, "T1", LEASE, 1, LOST, {"cause": cause})
    refunds = [] if cause.costs_a_retry else ["attempt_refunded"]
    assert told(conn) == ["task_failed", *refunds]
    assert transitions.give_back(conn, NOW, "T2", LEASE, cause=cause, why="gone")
    assert [e.event_type for e in events.of_task(conn, "T2")] == (refunds or ["task_returned"])
    last = events.of_task(conn, "T2")[-1].details
    assert last == {"lease": LEASE, "cause": cause.value, "why": "gone"}


@pytest.mark.parametrize("until", [None, NOW + 30.9])
def test_what_is_given_back_is_as_if_it_had_not_run_but_for_the_count(
    conn: Connection, until: float | None
) -> None:
    insert_held(conn, attempt=3, pid=9, error="e", started_at="x", heartbeat_at="x")
    assert transitions.give_back(conn, NOW, "T1", LEASE, cause=Cause.NODE, why="gone", until=until)
    for name in ("node", "pid", "error", "started_at", "heartbeat_at"):
        assert column(conn, name) is None
    assert column(conn, "attempt") == 3
    assert column(conn, "lease_owner") == (None if until is None else BACKOFF_OWNER)
    assert column(conn, "lease_expires_at") == (None if until is None else int(NOW + 30.9))


def test_a_retry_is_held_back_by_a_lease_that_every_scheduler_honours(conn: Connection) -> None:
    insert_held(conn, status="failed", pid=9, error="e", started_at="x", heartbeat_at="x")
    assert MOVES["retry"](conn)
    for name in ("node", "pid", "error", "started_at", "heartbeat_at"):
        assert column(conn, name) is None
    assert (column(conn, "lease_owner"), column(conn, "lease_expires_at")) == (
        BACKOFF_OWNER, int(NOW + 120),
    )  # fmt: skip
    assert (column(conn, "max_retries"), column(conn, "attempt")) == (4, 1)
    details = events.of_task(conn, "T1")[0].details
    assert details == {
        "attempt": 1, "until": iso(NOW + 120), "max_retries": 4, "why": "1 of 4",
    }  # fmt: skip


def test_a_retry_that_the_guardian_granted_says_for_what(conn: Connection) -> None:
    insert_held(conn, status="failed")
    assert transitions.retry(
        conn, NOW, "T1", 1, until=NOW, max_retries=6, why="w", extended="timeout"
    )
    assert events.of_task(conn, "T1")[0].details["extended"] == "timeout"


def test_burying_keeps_the_last_error_and_the_operators_retry_starts_afresh(
    conn: Connection,
) -> None:
    insert_held(conn, status="failed", error="boom", attempt=7)
    assert MOVES["bury"](conn, attempt=7)
    assert column(conn, "error") == "boom"
    assert MOVES["revive"](conn)
    row = tasks.get(conn, "T1")
    assert row is not None
    assert (row.attempt, row.error, row.node, row.lease_owner, row.started_at) == (
        0, None, None, None, None,
    )  # fmt: skip


def test_a_cancelled_task_holds_nothing_and_says_who(conn: Connection) -> None:
    row_in(conn, "running")
    assert MOVES["cancel"](conn)
    assert (column(conn, "lease_owner"), column(conn, "error")) == (None, "cancelled")
    assert events.of_task(conn, "T1")[0].details["cause"] == "operator"


# Leases: no transition, no event.


@each_status
def test_a_beat_renews_the_lease_of_a_held_task_alone(conn: Connection, status: str) -> None:
    row_in(conn, status, heartbeat_at="before", pid=5, lease_expires_at=1)
    transitions.renew(conn, NOW, [("T1", LEASE, NOW - 3, None), ("T1", "n1:ffffffff", NOW + 9, 6)])
    beaten = status in HELD
    assert column(conn, "heartbeat_at") == (iso(NOW - 3) if beaten else "before")
    assert column(conn, "pid") == 5
    assert not beaten or column(conn, "lease_expires_at") == int(NOW) + 300
    assert told(conn) == []


@pytest.mark.parametrize(
    ("columns", "cleared"),
    [
        ({"lease_owner": BACKOFF_OWNER, "lease_expires_at": int(NOW)}, True),
        ({"lease_owner": BACKOFF_OWNER, "lease_expires_at": int(NOW) + 1}, False),
        ({"lease_owner": "x", "lease_expires_at": None}, True),
        ({"lease_owner": "x", "lease_expires_at": "soon"}, True),
        ({"lease_owner": None, "lease_expires_at": 1}, False),
    ],
)
def test_only_an_expired_lease_of_a_pending_task_is_cleared(
    conn: Connection, columns: dict[str, Any], cleared: bool
) -> None:
    insert_task(conn, **columns)
    insert_held(conn, "T2", lease_expires_at=1)
    assert transitions.has_expired(conn, NOW) == cleared
    transitions.clear_expired(conn, NOW)
    assert not transitions.has_expired(conn, NOW)
    assert column(conn, "lease_owner") == (None if cleared else columns["lease_owner"])
    assert column(conn, "lease_owner", "T2") == LEASE


# Any order of anything.

steps = st.tuples(
    st.sampled_from(sorted(MOVES)), st.sampled_from([LEASE, "n1:99999999"]), st.integers(0, 3)
)


@given(st.lists(steps, max_size=25))
def test_whatever_comes_in_whatever_order_only_legal_moves_happen(
    told_steps: list[tuple[str, str, int]],
) -> None:
    conn = memory()
    insert_task(conn)
    for name, lease, attempt in told_steps:
        move = MOVES[name]
        before, count = everything(conn), len(told(conn))
        status = column(conn, "status")
        owner, tries = column(conn, "lease_owner"), column(conn, "attempt")
        if not move(conn, lease, attempt):
            assert everything(conn) == before
            continue
        assert len(told(conn)) == count + 1
        assert status in move.sources or (name == "update_from_spec" and status == "failed")
        assert not (move.by_lease or (name == "cancel" and status in HELD)) or owner == lease
        assert not move.by_attempt or tries == attempt
        assert (column(conn, "attempt") or 0) == {"claim": tries + 1, "revive": 0}.get(name, tries)
    json.dumps([dict(e.details) for e in events.since(conn, 0, 100)])
    conn._conn.close()
