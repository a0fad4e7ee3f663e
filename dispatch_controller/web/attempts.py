"""A task's attempts, put together from its events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dispatch_controller.core.times import parse_iso
from dispatch_controller.store.events import Event


@dataclass(slots=True)
class Attempt:
    """One start of a task. Times in Unix seconds."""

    number: int | None = None
    node: str | None = None
    executor: str | None = None
    lease: str | None = None
    claimed_at: float | None = None
    running_at: float | None = None
    ended_at: float | None = None
    outcome: str = "claimed"
    """claimed, running, completed, failed, returned or deadletter."""
    cause: str | None = None
    error: str | None = None
    exit_code: int | None = None
    gates: dict[str, str] = field(default_factory=dict)
    branch: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        """How long its process ran."""
        begun = self.running_at or self.claimed_at
        return None if begun is None or self.ended_at is None else self.ended_at - begun


def attempts(told: Iterable[Event]) -> list[Attempt]:
    """Return the attempts that events (oldest first) tell of, newest first.

    Events of other programs, which tell no lease, belong to the attempt before them.
    """
    found: list[Attempt] = []
    for event in told:
        if event.event_type == "task_claimed":
            found.append(_claimed(event))
        elif event.event_type in _TELLERS:
            current = _of(found, event)
            if current is None:
                if event.event_type not in ("task_running", "task_completed", "task_failed"):
                    continue
                current = Attempt(node=event.node)
                found.append(current)
            _TELLERS[event.event_type](current, event)
    return found[::-1]


def _claimed(event: Event) -> Attempt:
    details = event.details
    return Attempt(
        number=_whole(details.get("attempt")),
        node=event.node,
        executor=_text(details.get("executor")),
        lease=_text(details.get("lease")),
        claimed_at=parse_iso(event.timestamp),
    )


def _of(found: list[Attempt], event: Event) -> Attempt | None:
    lease = event.details.get("lease")
    if lease is None:
        return found[-1] if found else None
    return next((one for one in reversed(found) if one.lease == lease), None)


def _running(attempt: Attempt, event: Event) -> None:
    attempt.running_at = parse_iso(event.timestamp)
    attempt.outcome = "running"


def _ended(attempt: Attempt, event: Event) -> None:
    details = event.details
    attempt.ended_at = parse_iso(event.timestamp)
    attempt.outcome = event.event_type.removeprefix("task_")
    attempt.number = attempt.number or _whole(details.get("attempt"))
    attempt.cause = _text(details.get("cause"))
    attempt.error = _text(details.get("error"))
    attempt.exit_code = _whole(details.get("exit_code"))
    attempt.branch = _text(details.get("git_branch"))
    gates = details.get("gates")
    if isinstance(gates, Mapping):
        attempt.gates = {str(name): str(verdict) for name, verdict in gates.items()}


def _given_back(attempt: Attempt, event: Event) -> None:
    if attempt.ended_at is None:
        attempt.ended_at = parse_iso(event.timestamp)
        attempt.outcome = "returned"
        attempt.cause = _text(event.details.get("cause"))
        attempt.error = _text(event.details.get("why"))
    if event.event_type == "attempt_refunded":
        attempt.notes.append("cost no retry")


def _dead(attempt: Attempt, event: Event) -> None:
    if attempt.ended_at is None and event.details.get("lease") == attempt.lease:
        _ended(attempt, event)
    attempt.cause = attempt.cause or _text(event.details.get("cause"))
    why = _text(event.details.get("why"))
    attempt.notes.append("given up" + (f": {why}" if why else ""))


def _retried(attempt: Attempt, event: Event) -> None:
    why = _text(event.details.get("why"))
    attempt.notes.append("to be tried again" + (f": {why}" if why else ""))


def _outside(attempt: Attempt, event: Event) -> None:
    files = event.details.get("files")
    listed = ", ".join(str(file) for file in files[:10]) if isinstance(files, list) else ""
    attempt.notes.append(f"changed files outside of modifies: {listed}")


_TELLERS = {
    "task_running": _running,
    "task_completed": _ended,
    "task_failed": _ended,
    "task_returned": _given_back,
    "attempt_refunded": _given_back,
    "task_deadletter": _dead,
    "task_retry": _retried,
    "write_set_violation": _outside,
}


def _text(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None
