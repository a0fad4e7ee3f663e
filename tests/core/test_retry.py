"""What becomes of a failed task: every row and boundary of scheduling.md, Retries."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_controller.core.retry import (
    BackOff,
    Bury,
    Decision,
    Extend,
    Failure,
    History,
    RetryAt,
    decide,
    extend,
    pause,
)
from dispatch_controller.model import Cause

NOW = 1_750_000_000.0
OWN = Failure(Cause.TASK, "exit", 1)
NODE = Failure(Cause.NODE, "disk_full", 1)
LIMITED = Failure(Cause.EXECUTOR, "rate_limited", 1)
TIMEOUT = Failure(Cause.TASK, "timeout", 124)
KILLED = Failure(Cause.UNKNOWN, "exit", 137)
EMPTY = Failure(Cause.TASK, "empty_run", 0)
CANCELLED = Failure(Cause.OPERATOR, "killed", 143)


class Middle(random.Random):
    """No jitter."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def decided(
    attempt: int, *failures: Failure, refunds: int = 0, max_retries: int = 2, extended: bool = False
) -> Decision:
    history = History(refunds, failures, extended)
    return decide(attempt, max_retries, history, NOW, BackOff(), Middle())


@pytest.mark.parametrize(
    ("decision", "delay"),
    [
        (decided(1, OWN), 120),
        (decided(1, OWN, max_retries=5), 120),
        (decided(2, OWN, OWN, max_retries=5), 240),
        (decided(3, OWN, OWN, OWN, max_retries=5), 480),
        (decided(6, *[OWN] * 6, max_retries=9), 3600),  # 120 x 2^5 = 3840
        (decided(14, *[OWN] * 14, max_retries=20), 3600),
        (decided(1, KILLED), 120),
        (decided(1, EMPTY), 120),
        # What was not its fault was refunded, and delays as if it were the first.
        (decided(1, NODE, refunds=1), 120),
        (decided(3, NODE, NODE, NODE, refunds=3), 120),
        (decided(2, OWN, NODE, refunds=1), 120),
        (decided(3, NODE, OWN, OWN, refunds=1, max_retries=3), 240),
        (decided(14, *[LIMITED] * 14, refunds=14), 120),
        (decided(1, NODE, refunds=1, max_retries=0), 120),
        (decided(2, EMPTY, OWN, max_retries=3), 240),
        (decided(3, EMPTY, OWN, EMPTY, max_retries=4), 480),
        (decided(1), 120),  # no event tells of it: an old program's failure
    ],
)
def test_a_task_with_retries_left_waits_and_runs_again(decision: Decision, delay: float) -> None:
    assert isinstance(decision, RetryAt)
    assert decision.until == NOW + delay


@pytest.mark.parametrize(
    ("decision", "cause"),
    [
        (decided(2, OWN, OWN), Cause.TASK),
        (decided(1, OWN, max_retries=1), Cause.TASK),
        (decided(1, OWN, max_retries=0), Cause.TASK),
        (decided(3, OWN, NODE, OWN, refunds=1), Cause.TASK),
        # 15 starts are the end whatever the cause.
        (decided(15, OWN, max_retries=99), Cause.TASK),
        (decided(16, OWN, max_retries=99), Cause.TASK),
        (decided(15, *[NODE] * 15, refunds=15), Cause.NODE),
        (decided(15, KILLED), Cause.UNKNOWN),
        (decided(2, EMPTY, EMPTY, max_retries=9), Cause.SPEC),
        (decided(3, OWN, EMPTY, EMPTY, max_retries=9), Cause.SPEC),
        (decided(1, CANCELLED, refunds=1, max_retries=9), Cause.OPERATOR),
        (decided(4, TIMEOUT, extended=True), Cause.TASK),
    ],
)
def test_a_task_with_no_retry_left_is_buried_with_its_last_cause(
    decision: Decision, cause: Cause
) -> None:
    assert isinstance(decision, Bury)
    assert decision.cause is cause
    assert decision.why


@pytest.mark.parametrize("exit_code", [124, 137, 143, 255])
def test_exit_codes_that_are_not_the_tasks_own_fault_are_left_to_the_guardian(
    exit_code: int,
) -> None:
    last = Failure(Cause.UNKNOWN, "exit", exit_code)
    assert isinstance(decided(2, OWN, last), Extend)
    assert isinstance(decided(14, *[last] * 14), Extend)


@pytest.mark.parametrize("exit_code", [None, 0, 1, 2, 123, 125, 126, 127, 130, 254])
def test_other_exit_codes_are_its_own_fault(exit_code: int | None) -> None:
    assert isinstance(decided(2, OWN, Failure(Cause.TASK, "exit", exit_code)), Bury)


def test_a_time_out_is_extended_only_once_and_a_kill_every_time() -> None:
    assert isinstance(decided(2, OWN, TIMEOUT), Extend)
    assert isinstance(decided(2, OWN, Failure(Cause.TASK, "timeout", None)), Extend)
    assert isinstance(decided(7, TIMEOUT, extended=True), Bury)
    assert isinstance(decided(7, KILLED, extended=True), Extend)


def test_the_guardian_grants_five_more_after_this_attempt() -> None:
    granted = extend(4, History(0, (KILLED,)), NOW, BackOff(), Middle())
    assert granted.max_retries == 9
    assert granted.until == NOW + 120 * 2**3


@given(st.integers(-3, 2000), st.integers())
def test_the_delay_is_the_doubled_base_up_to_the_limit_within_a_fifth(used: int, seed: int) -> None:
    delay = BackOff(base=120, limit=3600).delay(used, random.Random(seed))
    middle = min(3600, 120 * 2 ** min(max(0, used - 1), 10))
    assert 0.8 * middle <= delay <= 1.2 * middle


failures = st.builds(
    Failure,
    st.sampled_from(Cause),
    st.sampled_from(["exit", "timeout", "empty_run", "killed", None]),
    st.sampled_from([None, 0, 1, 124, 137, 143, 255]),
)


@given(
    st.integers(0, 20),
    st.integers(0, 12),
    st.lists(failures, max_size=4),
    st.integers(0, 20),
    st.booleans(),
)
def test_no_history_lets_a_task_start_more_than_fifteen_times(
    attempt: int, max_retries: int, past: list[Failure], refunds: int, extended: bool
) -> None:
    decision = decided(attempt, *past, refunds=refunds, max_retries=max_retries, extended=extended)
    if attempt >= 15 or (past and past[-1].cause is Cause.OPERATOR):
        assert isinstance(decision, Bury)
    if isinstance(decision, RetryAt):
        assert decision.until > NOW
        assert decision.max_retries == max_retries


@pytest.mark.parametrize(
    ("attempt", "least", "seconds"),
    [
        *[(0, 0, 0), (1, 0, 0), (2, 0, 30), (3, 0, 60), (9, 0, 3600), (400, 0, 3600)],
        *[(1, 5, 5), (2, 5, 10), (1, 30, 30), (8, 30, 3600)],
    ],
)
def test_a_start_that_came_to_nothing_holds_the_task_back_longer_each_time(
    attempt: int, least: float, seconds: float
) -> None:
    assert pause(attempt, least) == seconds
