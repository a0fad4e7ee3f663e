"""What an observation means for its task: the state table and the fencing of scheduling.md."""

from __future__ import annotations

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
    judge,
)
from dispatch_controller.model import Cause, Observation, RunState, Task, TaskStatus
from tests.make import LEASE, NOW, held, seen, task

ENDED = (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.DEADLETTER)
FINAL = (RunState.COMPLETED, RunState.FAILED, RunState.TIMEOUT)
STUCK = EndedByUs(Cause.TASK, "stuck: no progress")
CANCELLED = EndedByUs(Cause.OPERATOR, "cancelled by the operator", cancelled=True)


@pytest.mark.parametrize(
    ("status", "state", "alive", "verdict"),
    [
        (TaskStatus.CLAIMED, RunState.RUNNING, True, Confirm),
        (TaskStatus.RUNNING, RunState.RUNNING, True, Beat),
        (TaskStatus.CLAIMED, RunState.RUNNING, False, Nothing),
        (TaskStatus.RUNNING, RunState.RUNNING, False, Nothing),
        *[(status, state, alive, Nothing)
          for status in (TaskStatus.CLAIMED, TaskStatus.RUNNING)
          for state in (RunState.PENDING, RunState.UNKNOWN) for alive in (True, False)],
        *[(status, state, alive, Finish)
          for status in (TaskStatus.CLAIMED, TaskStatus.RUNNING)
          for state in FINAL for alive in (True, False)],
        *[(status, state, False, Known) for status in ENDED for state in FINAL],
        *[(status, RunState.RUNNING, True, Stale) for status in ENDED],
    ],
)  # fmt: skip
def test_what_a_state_means_in_each_status(
    status: TaskStatus, state: RunState, alive: bool, verdict: type
) -> None:
    assert isinstance(judge(held(status=status), seen(state=state, alive=alive), {}), verdict)


@pytest.mark.parametrize("state", RunState)
@pytest.mark.parametrize(
    ("row", "report"),
    [
        (held(), seen(lease="n1:ffffffff")),
        (held(attempt=2), seen(attempt=1)),
        (held(attempt=1), seen(attempt=2)),
        (held(lease_owner=None), seen()),
        (held(project="q"), seen()),
        (None, seen()),
        (task(), seen()),
        (task(lease_owner="backoff:00000000", lease_expires_at=NOW + 60), seen()),
        (held(status=TaskStatus.COMPLETED, lease_owner="n2:11111111"), seen()),
    ],
)
def test_another_lease_attempt_or_project_is_stale(
    row: Task | None, report: Observation, state: RunState
) -> None:
    assert isinstance(judge(row, replace(report, state=state), {}), Stale)


def test_the_lease_alone_is_enough_where_no_attempt_is_told() -> None:
    assert isinstance(judge(held(attempt=7), seen(attempt=None), {}), Beat)


START = NOW - 600


@pytest.mark.parametrize(
    ("row", "fields", "counts"),
    [
        (held(), {"completed_at": NOW}, True),
        (held(status=TaskStatus.CLAIMED), {"completed_at": NOW}, True),
        (held(lease_owner=None), {"completed_at": NOW}, True),
        (held(), {"completed_at": START}, True),
        (held(), {"completed_at": START - 1}, True),  # times of old wrappers are whole seconds
        (held(), {"completed_at": START - 1.01}, False),
        (held(), {"heartbeat_at": START - 60}, False),
        (held(), {"completed_at": NOW, "heartbeat_at": START - 60}, True),
        (held(), {}, True),
        (held(started_at=None), {"completed_at": START - 60}, True),
        (held(node="n2"), {"completed_at": NOW}, False),
        (held(attempt=2), {"completed_at": NOW}, False),  # it tells attempt 1
        (held(attempt=2), {"completed_at": NOW, "attempt": None}, True),
        *[(held(status=status), {"completed_at": NOW}, False) for status in ENDED],
        (task(node="n1"), {"completed_at": NOW, "attempt": None}, False),
    ],
)
def test_a_report_without_a_lease_counts_only_for_the_attempt_at_work(
    row: Task, fields: dict[str, object], counts: bool
) -> None:
    report = seen(lease=None, state=RunState.COMPLETED, **fields)
    verdict = judge(row, report, {})
    assert isinstance(verdict, Finish if counts else Stale)


def test_completed_wins_over_an_ending() -> None:
    for ending in (STUCK, CANCELLED):
        assert judge(held(), seen(state=RunState.COMPLETED), {LEASE: ending}) == Finish(True)


@pytest.mark.parametrize("reason", ["killed", None])
def test_what_we_ended_fails_for_our_reason(reason: str | None) -> None:
    report = seen(state=RunState.FAILED, reason=reason, exit_code=143)
    assert judge(held(), report, {LEASE: STUCK}) == Finish(False, Cause.TASK, STUCK.why)


def test_what_failed_by_itself_before_we_could_end_it_fails_for_its_own_reason() -> None:
    report = seen(state=RunState.FAILED, reason="exit", exit_code=2, error="boom")
    assert judge(held(), report, {LEASE: STUCK}) == Finish(False, Cause.TASK, "boom")


@pytest.mark.parametrize("reason", ["killed", "exit", "timeout", "supervisor_lost", None])
@pytest.mark.parametrize("state", [RunState.FAILED, RunState.TIMEOUT])
def test_a_cancelled_task_stays_cancelled_however_it_failed(
    reason: str | None, state: RunState
) -> None:
    verdict = judge(held(), seen(state=state, reason=reason), {LEASE: CANCELLED})
    assert verdict == Finish(False, Cause.OPERATOR, CANCELLED.why, cancelled=True)


def test_an_ending_of_another_lease_means_nothing() -> None:
    report = seen(state=RunState.FAILED, reason="killed", exit_code=143)
    verdict = judge(held(), report, {"n1:ffffffff": CANCELLED})
    assert verdict == Finish(False, Cause.UNKNOWN, "exit status 143")


def test_a_lost_supervisor_gives_the_task_back_until_its_fifteenth_start() -> None:
    report = seen(state=RunState.FAILED, reason="supervisor_lost", error="gone", attempt=None)
    assert judge(held(attempt=14), report, {}) == GiveBack(Cause.NODE, "gone")
    assert judge(held(attempt=15), report, {}) == Finish(False, Cause.NODE, "gone")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"state": RunState.FAILED, "error": "boom", "exit_code": 1}, "boom"),
        ({"state": RunState.TIMEOUT, "exit_code": 124}, "ran into its time limit"),
        ({"state": RunState.FAILED, "exit_code": 3, "reason": "exit"}, "exit status 3"),
        ({"state": RunState.FAILED, "exit_code": 0, "reason": "empty_run"}, "exit status 0"),
        ({"state": RunState.FAILED, "reason": "wrapper_error"}, "wrapper_error"),
        ({"state": RunState.FAILED}, "failed without a reason"),
    ],
)
def test_a_failure_always_says_something(fields: dict[str, object], error: str) -> None:
    verdict = judge(held(), seen(**fields), {})
    assert isinstance(verdict, Finish)
    assert verdict.error == error


@given(
    st.sampled_from(TaskStatus),
    st.sampled_from(RunState),
    st.booleans(),
    st.sampled_from([LEASE, "n1:ffffffff", None]),
    st.sampled_from([1, 2, None]),
    st.sampled_from([None, "killed", "supervisor_lost", "exit"]),
    st.sampled_from([{}, {LEASE: STUCK}, {LEASE: CANCELLED}]),
)
def test_only_the_attempt_at_work_is_ever_changed(
    status: TaskStatus,
    state: RunState,
    alive: bool,
    lease: str | None,
    attempt: int | None,
    reason: str | None,
    endings: dict[str, EndedByUs],
) -> None:
    row = held(status=status)
    report = seen(state=state, alive=alive, lease=lease, attempt=attempt, reason=reason)
    verdict = judge(row, report, endings)
    if isinstance(verdict, Confirm | Beat | Finish | GiveBack):
        assert status in (TaskStatus.CLAIMED, TaskStatus.RUNNING)
        assert lease in (LEASE, None)
        assert attempt in (1, None)
    if isinstance(verdict, Confirm):
        assert status is TaskStatus.CLAIMED
    if isinstance(verdict, Finish) and not verdict.completed:
        assert verdict.cause is not None
        assert verdict.error
