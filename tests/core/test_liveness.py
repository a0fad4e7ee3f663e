"""Who is stuck, who is a ghost, which node is lost: each limit on both sides (loops.md)."""

from __future__ import annotations

import pytest

from dispatch_controller.core.liveness import (
    Progress,
    first_progress,
    ghost,
    node_lost,
    stuck,
)
from dispatch_controller.model import TaskStatus
from tests.make import NOW, held, seen

LIMIT, HALF_HOUR = 7200.0, 1800.0


def verdict(
    *, still: float = 0.0, ran: float | None = 60.0, trusted: float = NOW - 10**6
) -> str | None:
    return stuck(
        held(started_at=None if ran is None else NOW - ran),
        Progress(NOW - still, 0.0, 0.0, 0, 0.0),
        time_limit=LIMIT,
        stuck_after=HALF_HOUR,
        trusted_since=trusted,
        now=NOW,
    )


@pytest.mark.parametrize(("still", "ends"), [(0, False), (1800, False), (1800.1, True)])
def test_no_progress_for_longer_than_its_limit_is_stuck(still: float, ends: bool) -> None:
    why = verdict(still=still)
    assert (why is not None) == ends
    assert why is None or "no progress of any kind for 30 min" in why


@pytest.mark.parametrize(("ran", "ends"), [(7200, False), (7500, False), (7500.1, True)])
def test_five_minutes_past_its_limit_is_too_long(ran: float, ends: bool) -> None:
    why = verdict(ran=ran)
    assert (why is not None) == ends
    assert why is None or "its limit" in why


def test_a_row_without_a_start_is_judged_on_its_progress_alone() -> None:
    assert verdict(ran=None) is None
    assert verdict(ran=None, still=4000) is not None


def test_no_verdict_counts_time_from_before_a_start_or_a_jump_of_the_clock() -> None:
    assert verdict(still=10**5, ran=10**5, trusted=NOW - 100) is None
    assert verdict(still=10**5, ran=10**5, trusted=NOW - 1801) is not None


BEFORE = Progress(NOW, cpu=10.0, log_at=NOW, log_size=100, files_at=NOW)
SAME = {"cpu_seconds": 10.0, "log_at": NOW, "log_size": 100, "files_at": NOW}


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({}, False),
        ({"cpu_seconds": 10.05}, False),  # a runtime that idles
        ({"cpu_seconds": 10.125}, True),
        ({"cpu_seconds": 9.0}, True),  # a child that had used it has ended
        ({"log_at": NOW + 1}, True),
        ({"log_size": 101}, True),
        ({"log_size": 0}, True),  # rotated or truncated: somebody is at work
        ({"files_at": NOW + 1}, True),
        ({"files_at": NOW - 1}, False),  # the newest file was deleted
        ({"heartbeat_at": NOW + 60}, False),  # the supervisor beats for a frozen agent too
    ],
)
def test_what_counts_as_progress(change: dict[str, float], moved: bool) -> None:
    after = BEFORE.seen(NOW + 60, seen(**{**SAME, **change}))
    assert after.since == (NOW + 60 if moved else NOW)


def test_slow_work_adds_up_to_progress() -> None:
    progress = BEFORE
    for n in range(1, 5):
        progress = progress.seen(NOW + n, seen(**{**SAME, "cpu_seconds": 10 + n / 32}))
    assert progress.since == NOW + 4


def test_whoever_looks_first_knows_of_no_stop() -> None:
    assert first_progress(NOW, seen()) == Progress(NOW, 0.0, 0.0, 0, 0.0)
    assert first_progress(NOW, seen(**SAME)) == BEFORE


@pytest.mark.parametrize(
    ("status", "age", "gone"),
    [
        (TaskStatus.RUNNING, 119.0, False),
        (TaskStatus.RUNNING, 120.0, False),
        (TaskStatus.RUNNING, 120.1, True),
        (TaskStatus.RUNNING, None, True),
        (TaskStatus.CLAIMED, 119.0, False),
        (TaskStatus.CLAIMED, 120.1, True),
        (TaskStatus.PENDING, 10_000.0, False),
        (TaskStatus.FAILED, 10_000.0, False),
    ],
)
def test_a_ghost_was_claimed_two_minutes_ago(
    status: TaskStatus, age: float | None, gone: bool
) -> None:
    assert ghost(held(status=status, started_at=None if age is None else NOW - age), NOW) == gone


@pytest.mark.parametrize(
    ("contact", "failed", "trusted", "lost"),
    [
        (NOW - 1000, True, NOW - 5000, NOW - 820),
        (NOW - 180, True, NOW - 5000, None),
        (NOW - 180.5, True, NOW - 5000, NOW - 0.5),
        (NOW - 1000, False, NOW - 5000, None),  # silent, and nobody asked
        (NOW - 1000, True, NOW - 100, None),  # our own start, or a jump of the clock
        (NOW - 1000, True, NOW - 200, NOW - 20),
        (None, True, NOW - 5000, NOW - 4820),
        (None, True, NOW - 10, None),
        (NOW + 50, True, NOW - 5000, None),
    ],
)
def test_a_node_is_lost_after_three_minutes_and_a_failed_call(
    contact: float | None, failed: bool, trusted: float, lost: float | None
) -> None:
    assert node_lost(contact, failed, trusted, NOW) == lost
