"""What an observation means for the task it is about: fencing, and nothing guessed.

A status or report that carries another lease changes nothing (scheduling.md, Fencing).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dispatch_controller.core.causes import Evidence, attribute
from dispatch_controller.core.retry import MOST_STARTS
from dispatch_controller.model import HELD, Cause, Observation, RunState, Task, TaskStatus


@dataclass(frozen=True, slots=True)
class EndedByUs:
    """The controller has the process of a lease ended, and this is why."""

    cause: Cause
    why: str
    """Becomes the task's error."""
    cancelled: bool = False
    """The operator cancelled the task: it ends in deadletter."""


@dataclass(frozen=True, slots=True)
class Confirm:
    """The process exists: claimed → running."""


@dataclass(frozen=True, slots=True)
class Beat:
    """It goes on: the lease is renewed."""


@dataclass(frozen=True, slots=True)
class Finish:
    """It ended: completed, or failed with a cause and an error."""

    completed: bool
    cause: Cause | None = None
    error: str | None = None
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class GiveBack:
    """It is gone without a result: back to pending."""

    cause: Cause
    why: str


@dataclass(frozen=True, slots=True)
class Known:
    """The end of this very attempt is recorded already; the node may forget it."""


@dataclass(frozen=True, slots=True)
class Stale:
    """It is about another attempt, or a task that does not exist: it changes nothing."""

    why: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """It says nothing that could be acted on."""


Verdict = Confirm | Beat | Finish | GiveBack | Known | Stale | Nothing


def judge(task: Task | None, seen: Observation, endings: Mapping[str, EndedByUs]) -> Verdict:
    """Return what `seen` means for `task` (the row with its id, if there is one).

    HTTP workers tell no project: ids are unique over all of them.
    """
    if task is None or seen.project not in ("", task.project):
        return Stale("no such task in the database")
    if seen.lease is None:
        if not _fits_without_lease(task, seen):
            return Stale("a report without a lease that does not fit the task's attempt")
    elif seen.lease != task.lease_owner or seen.attempt not in (None, task.attempt):
        return Stale(f"lease {seen.lease}, attempt {seen.attempt} is not the task's")
    if task.status not in HELD:
        return Known() if seen.state.final else Stale(f"the task is {task.status}")
    if seen.state.final:
        return _ended(task, seen, endings.get(task.holding))
    if seen.state is RunState.RUNNING and seen.alive:
        return Confirm() if task.status is TaskStatus.CLAIMED else Beat()
    return Nothing()


def _fits_without_lease(task: Task, seen: Observation) -> bool:
    """Older workers: only from the task's node, while it is held, not older than its start."""
    if seen.attempt not in (None, task.attempt):
        return False
    at = seen.completed_at or seen.heartbeat_at
    return (
        task.node == seen.node
        and task.status in HELD
        and (at is None or task.started_at is None or at >= task.started_at - 1.0)
    )


def _ended(task: Task, seen: Observation, ending: EndedByUs | None) -> Verdict:
    if seen.state is RunState.COMPLETED:
        return Finish(completed=True)
    if ending is not None and (ending.cancelled or seen.reason in (None, "killed")):
        # Older workers tell no reason. A cancelled task that failed by itself stays cancelled.
        return Finish(False, ending.cause, ending.why, ending.cancelled)
    error = seen.error or _describe(seen)
    cause = attribute(Evidence(seen.reason, seen.exit_code, seen.error))
    if seen.reason == "supervisor_lost" and task.attempt < MOST_STARTS:
        return GiveBack(cause, error)
    return Finish(False, cause, error)


def _describe(seen: Observation) -> str:
    if seen.state is RunState.TIMEOUT:
        return "ran into its time limit"
    if seen.exit_code is not None:
        return f"exit status {seen.exit_code}"
    return seen.reason or "failed without a reason"
