"""What becomes of a failed task: a decision as a value (scheduling.md, Retries)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from dispatch_controller.model import Cause

MOST_STARTS = 15
"""Starts after which a task ends, whatever the cause."""

FIRST_PAUSE, MOST_PAUSE = 30.0, 3600.0

NOT_ITS_OWN_FAULT = (124, 137, 143, 255)
"""Exit codes for which the guardian grants more retries."""


def pause(attempt: int, least: float = 0.0) -> float:
    """Return for how many seconds a task waits whose start came to nothing.

    Nothing after its first start, since another node may be free; then doubled with each one, so
    that a node that is out of order for a night does not use up the starts there are. `least` is
    where the doubling begins instead, from the first start on.
    """
    if least:
        return min(MOST_PAUSE, least * 2.0 ** min(max(0, attempt - 1), 30))
    return 0.0 if attempt < 2 else min(MOST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt - 2, 30))


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt, as its event tells."""

    cause: Cause
    reason: str | None
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class History:
    """What `events` says of a task since its registration or the operator's last retry."""

    refunds: int = 0
    failures: Sequence[Failure] = ()
    """Oldest first."""
    extended_for_timeout: bool = False
    """The guardian has granted more retries for a time-out before."""


@dataclass(frozen=True, slots=True)
class BackOff:
    """`base` seconds x 2^(retries used - 1), at most `limit`, ±20 %."""

    base: float = 120.0
    limit: float = 3600.0

    def delay(self, retries_used: int, rng: random.Random) -> float:
        """Return seconds. The first retry waits `base`; so does one that cost nothing."""
        doubled = self.base * 2.0 ** min(max(0, retries_used - 1), 30)
        return min(self.limit, doubled) * rng.uniform(0.8, 1.2)


@dataclass(frozen=True, slots=True)
class RetryAt:
    until: float
    max_retries: int
    why: str


@dataclass(frozen=True, slots=True)
class Extend:
    """Not decided here: the guardian may grant more retries (`extend`)."""


@dataclass(frozen=True, slots=True)
class Bury:
    cause: Cause
    why: str


Decision = RetryAt | Extend | Bury


def decide(
    attempt: int, max_retries: int, history: History, now: float, backoff: BackOff,
    rng: random.Random,
) -> Decision:  # fmt: skip
    """Return what becomes of a task that failed in `attempt`.

    Retries used = attempt - refunds, as the contract counts them: the first start is one. The
    refund of a failure whose cause costs no retry is already among the refunds.
    """
    last = history.failures[-1] if history.failures else Failure(Cause.UNKNOWN, None, None)
    if [failure.reason for failure in history.failures[-2:]] == ["empty_run", "empty_run"]:
        return Bury(Cause.SPEC, "two attempts in a row changed nothing (empty_run)")
    if attempt >= MOST_STARTS:
        return Bury(last.cause, f"started {attempt} times")
    used = attempt - history.refunds
    if last.cause is Cause.OPERATOR:
        return Bury(Cause.OPERATOR, "cancelled by the operator")
    if used < max_retries or not last.cause.costs_a_retry:
        until = now + backoff.delay(used, rng)
        return RetryAt(until, max_retries, f"retries used {used} of {max_retries}")
    if _extendable(last, history):  # a cause that costs no retry has been retried above
        return Extend()
    return Bury(last.cause, f"failed {used} times, {max_retries} allowed")


def extend(
    attempt: int, history: History, now: float, backoff: BackOff, rng: random.Random
) -> RetryAt:
    """Return the retry that the guardian grants after `Extend`: max_retries = attempt + 5."""
    used = attempt - history.refunds
    return RetryAt(
        now + backoff.delay(used, rng), attempt + 5, "the failure was not the task's own fault"
    )


def _extendable(last: Failure, history: History) -> bool:
    if last.reason == "killed":  # by us: its exit code is our own signal
        return False
    if last.exit_code == 124 or last.reason == "timeout":
        return not history.extended_for_timeout
    return last.exit_code in NOT_ITS_OWN_FAULT
