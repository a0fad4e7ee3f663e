"""The history that `events` tells, held against the state table of scheduling.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dispatch_controller.model import Cause

HELD = ("claimed", "running")
MOST_STARTS = 15


class Violation(AssertionError):
    """An invariant does not hold. The text says which, of which task, and when."""


@dataclass(frozen=True, slots=True)
class Step:
    """One row of `events`."""

    id: int
    timestamp: str
    task_id: str
    what: str
    details: Mapping[str, object]


@dataclass(slots=True)
class Life:
    """Where a task stands by what its events say."""

    status: str | None = None
    lease: str | None = None
    attempt: int = 0
    failures: int = 0
    """Of its own, since registration or the operator's last retry."""
    empty_runs: int = 0
    """In a row."""
    refunded: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    """Leases it ever had."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a task's status."""

    task_id: str
    before: str | None
    after: str
    lease: str | None
    """The attempt it ended, where the task was held before."""
    step: Step


_CHANGES: dict[str, tuple[tuple[str | None, ...], str]] = {
    "task_registered": ((None,), "pending"),
    "task_claimed": (("pending",), "claimed"),
    "task_running": (("claimed",), "running"),
    "task_completed": (HELD, "completed"),
    "task_failed": (HELD, "failed"),
    "task_returned": (HELD, "pending"),
    "task_retry": (("failed",), "pending"),
    "task_deadletter": (("pending", "failed", *HELD), "deadletter"),
    "operator_retry": (("failed", "deadletter"), "pending"),
}


class History:
    """All tasks, by their events."""

    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}

    def apply(self, step: Step) -> Change | None:
        """Take in one event; return the change of status it tells, if it tells one."""
        life = self.lives.setdefault(step.task_id, Life())
        if step.what == "attempt_refunded":
            return self._refund(life, step)
        if step.what not in _CHANGES:
            return None
        allowed, after = _CHANGES[step.what]
        if life.status not in allowed:
            raise Violation(f"{step.task_id}: {step.what} while it is {life.status}")
        return self._change(life, step, after)

    def _refund(self, life: Life, step: Step) -> Change | None:
        """An attempt given back, or the price of a failure that its event told just before."""
        lease = str(step.details["lease"])
        if lease in life.refunded or lease != life.lease:
            raise Violation(f"{step.task_id}: {lease} is refunded twice, or late")
        life.refunded.add(lease)
        return self._change(life, step, "pending") if life.status in HELD else None

    def _change(self, life: Life, step: Step, after: str) -> Change:
        before, lease = life.status, None
        told = step.details.get("lease")
        if before in HELD:
            lease = life.lease
            if told != lease:
                raise Violation(f"{step.task_id}: {step.what} of {told}, but {lease} holds it")
        life.status = after
        self._count(life, step, after)
        return Change(step.task_id, before, after, lease, step)

    def _count(self, life: Life, step: Step, after: str) -> None:
        if after == "claimed":
            lease = str(step.details["lease"])
            if lease in life.used:
                raise Violation(f"{step.task_id}: lease {lease} is used twice")
            life.used.add(lease)
            life.lease, life.attempt = lease, life.attempt + 1
            if step.details["attempt"] != life.attempt or life.attempt > MOST_STARTS:
                raise Violation(f"{step.task_id}: attempt {step.details['attempt']} is not next")
        elif after == "failed":
            own = Cause(str(step.details["cause"])).costs_a_retry
            life.failures += own
            empty = step.details.get("reason") == "empty_run"
            life.empty_runs = life.empty_runs + 1 if empty else 0
        elif after == "deadletter" and step.details.get("cause") not in set(Cause):
            raise Violation(f"{step.task_id}: deadletter without a cause")
        elif step.what == "operator_retry":
            life.attempt = life.failures = life.empty_runs = 0
