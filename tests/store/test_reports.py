"""Observations written to the rows they are about: each changes its own attempt, once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_controller.core.reports import (
    Beat,
    Confirm,
    EndedByUs,
    Finish,
    GiveBack,
    Known,
    Nothing,
    Stale,
)
from dispatch_controller.core.times import iso
from dispatch_controller.model import Cause, Observation, RunState, TaskStatus
from dispatch_controller.store import events, reports, tasks
from dispatch_controller.store.reports import Recorded
from dispatch_controller.store.writer import Connection
from tests.make import LEASE, NOW, insert_held, insert_task, memory, seen

CANCELLED = EndedByUs(Cause.OPERATOR, "cancelled by the operator", cancelled=True)
DONE = seen(state=RunState.COMPLETED, alive=False, completed_at=NOW - 10, started_at=NOW - 70)
FAILED = seen(state=RunState.FAILED, alive=False, exit_code=1, reason="exit", error="boom")


@pytest.fixture
def conn() -> Iterator[Connection]:
    conn = memory()
    yield conn
    conn._conn.close()


def apply(
    conn: Connection, *observations: Observation, endings: dict[str, EndedByUs] | None = None
) -> list[Recorded]:
    return reports.apply(conn, NOW, observations, endings or {})


def told(conn: Connection) -> list[str]:
    return [event.event_type for event in events.since(conn, 0, 100)]


def status(conn: Connection, id: str = "T1") -> str:
    row = tasks.get(conn, id)
    assert row is not None
    return row.status.value


def test_a_start_that_is_confirmed_runs(conn: Connection) -> None:
    insert_held(conn, status="claimed")
    (one,) = apply(conn, seen(pid=42, log_file="/log"))
    assert (type(one.verdict), one.changed) == (Confirm, True)
    row = tasks.get(conn, "T1")
    assert row is not None
    assert (row.status, row.pid, row.log_file) == (TaskStatus.RUNNING, 42, "/log")
    assert told(conn) == ["task_running"]


def test_a_beat_renews_the_lease_and_tells_nothing(conn: Connection) -> None:
    insert_held(conn, lease_expires_at=1)
    (one,) = apply(conn, seen(heartbeat_at=NOW - 2))
    assert (type(one.verdict), one.changed) == (Beat, False)
    row = tasks.get(conn, "T1")
    assert row is not None
    assert (row.heartbeat_at, row.lease_expires_at) == (NOW - 2, int(NOW) + 300)
    assert told(conn) == []


def test_a_result_is_recorded_once_and_told_again_changes_nothing(conn: Connection) -> None:
    insert_held(conn)
    report = replace(DONE, loc_added=3, loc_removed=1, files_changed=2, artifact_hash="abc",
                     salvage="ref", gates={"verify": "passed"}, git_branch="task/x")  # fmt: skip
    first, again = apply(conn, report, report)
    assert (type(first.verdict), first.changed) == (Finish, True)
    assert (type(again.verdict), again.changed) == (Known, False)
    (third,) = apply(conn, report)
    assert (type(third.verdict), third.changed) == (Known, False)
    row = conn.execute("SELECT * FROM tasks").fetchone()
    assert (row["status"], row["completed_at"], row["collected_at"]) == (
        "completed", iso(NOW - 10), iso(NOW),
    )  # fmt: skip
    assert (row["loc_added"], row["loc_removed"], row["files_changed"]) == (3, 1, 2)
    assert (row["artifact_hash"], row["artifact_patch"]) == ("abc", "ref")
    assert row["duration_seconds"] == 60
    (event,) = events.since(conn, 0, 9)
    assert event.details["gates"] == {"verify": "passed"}
    assert event.details["git_branch"] == "task/x"


def test_a_failure_tells_cause_reason_exit_code_and_error(conn: Connection) -> None:
    insert_held(conn)
    apply(conn, FAILED)
    (event,) = events.since(conn, 0, 9)
    assert event.event_type == "task_failed"
    assert {k: event.details[k] for k in ("cause", "reason", "exit_code", "error")} == {
        "cause": "task", "reason": "exit", "exit_code": 1, "error": "boom",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "refunded"),
    [("exit", False), ("gate:verify", False), ("empty_run", False), ("timeout", False),
     ("bad_order", False), ("disk_full", True), ("rate_limited", True), ("wrapper_error", True),
     ("executor_missing", True), ("out_of_memory", True)],
)  # fmt: skip
def test_what_was_not_the_tasks_fault_is_refunded(
    conn: Connection, reason: str, refunded: bool
) -> None:
    insert_held(conn)
    apply(conn, replace(FAILED, reason=reason))
    assert told(conn) == ["task_failed", *(["attempt_refunded"] if refunded else [])]
    assert status(conn) == "failed"


def test_files_outside_its_write_set_are_told(conn: Connection) -> None:
    insert_held(conn)
    apply(conn, replace(DONE, outside=("other.py",)))
    assert told(conn) == ["task_completed", "write_set_violation"]
    assert events.since(conn, 0, 9)[1].details["files"] == ["other.py"]


def test_a_stale_result_is_an_event_and_nothing_else(conn: Connection) -> None:
    insert_held(conn, attempt=2)
    before = [tuple(row) for row in conn.execute("SELECT * FROM tasks")]
    late = [replace(DONE, lease="n1:ffffffff"), DONE, replace(DONE, task_id="nobody"),
            replace(DONE, task_id=None), replace(DONE, project="q")]  # fmt: skip
    assert all(isinstance(one.verdict, Stale) and not one.changed for one in apply(conn, *late))
    assert [tuple(row) for row in conn.execute("SELECT * FROM tasks")] == before
    assert told(conn) == ["stale_report"] * 5
    event = events.since(conn, 0, 1)[0]
    assert (event.details["lease"], event.details["state"]) == ("n1:ffffffff", "completed")


def test_a_stale_beat_does_not_fill_the_history(conn: Connection) -> None:
    insert_held(conn)
    apply(conn, seen(lease="n1:ffffffff"), seen(lease="n1:ffffffff"))
    assert told(conn) == []


def test_a_lost_supervisor_gives_the_task_back_refunded(conn: Connection) -> None:
    insert_held(conn)
    (one,) = apply(conn, replace(FAILED, reason="supervisor_lost"))
    assert (type(one.verdict), one.changed) == (GiveBack, True)
    assert (status(conn), told(conn)) == ("pending", ["attempt_refunded"])


@pytest.mark.parametrize("reason", ["killed", "exit", "supervisor_lost", None])
def test_a_cancelled_task_is_never_run_again(conn: Connection, reason: str | None) -> None:
    insert_held(conn)
    apply(conn, replace(FAILED, reason=reason), endings={LEASE: CANCELLED})
    assert (status(conn), told(conn)) == ("deadletter", ["task_deadletter"])


def test_what_an_old_program_started_without_a_lease_can_end(conn: Connection) -> None:
    insert_held(conn, "T1", lease_owner=None)
    insert_held(conn, "T2", lease_owner=None, status="claimed", attempt=None)
    old = replace(DONE, lease=None, attempt=None)
    apply(conn, old, replace(old, task_id="T2", state=RunState.RUNNING, alive=True))
    assert (status(conn, "T1"), status(conn, "T2")) == ("completed", "running")


def test_a_batch_is_judged_in_its_order(conn: Connection) -> None:
    insert_held(conn, "T1", status="claimed")
    insert_held(conn, "T2")
    found = apply(
        conn, seen(), DONE, replace(FAILED, task_id="T2"), replace(DONE, task_id="T2"), seen()
    )
    assert [type(one.verdict) for one in found] == [Confirm, Finish, Finish, Known, Stale]
    assert told(conn) == ["task_running", "task_completed", "task_failed"]


def test_times_that_no_clock_has_do_not_stop_the_batch(conn: Connection) -> None:
    insert_held(conn, "T1")
    insert_held(conn, "T2")
    odd = replace(DONE, completed_at=1e18, started_at=-1e18)
    apply(conn, odd, seen(task_id="T2", heartbeat_at=1e18))
    assert status(conn) == "completed"


def test_what_says_nothing_changes_nothing(conn: Connection) -> None:
    insert_held(conn)
    found = apply(conn, seen(alive=False), seen(state=RunState.UNKNOWN))
    assert [type(one.verdict) for one in found] == [Nothing, Nothing]
    assert (status(conn), told(conn)) == ("running", [])


reports_of_any_kind = st.builds(
    seen,
    task_id=st.sampled_from(["T1", "T2", None]),
    node=st.sampled_from(["n1", "n2"]),
    lease=st.sampled_from([LEASE, "n1:ffffffff", None, ""]),
    attempt=st.sampled_from([1, 2, None]),
    state=st.sampled_from(RunState),
    alive=st.booleans(),
    reason=st.sampled_from([None, "exit", "killed", "disk_full", "supervisor_lost"]),
    exit_code=st.sampled_from([None, 0, 1, 137]),
)


@given(st.lists(reports_of_any_kind, max_size=12), st.sampled_from(["claimed", "running"]))
def test_an_attempt_ends_at_most_once_whatever_is_reported(
    batch: list[Observation], start: str
) -> None:
    conn = memory()
    insert_held(conn, "T1", status=start)
    insert_task(conn, "T2")
    found = apply(conn, *batch)
    ends = [e for e in told(conn) if e in ("task_completed", "task_failed", "task_returned")]
    gone = sum(isinstance(one.verdict, GiveBack) and one.changed for one in found)
    assert len(ends) + gone <= 1
    assert status(conn, "T2") == "pending"
    if status(conn) == start:
        assert not any(one.changed for one in found)
    conn._conn.close()
