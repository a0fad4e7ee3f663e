"""How many specs a project's generators may still make (loops.md, Factory): they listen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dispatch_controller.model import TaskStatus

WINDOW = 20
"""How many of the last tasks are looked at."""
DAY = 86_400.0
"""Seconds. A day is the last 24 hours, so that no calendar day ever holds more than the limit."""
WORST_RATE = 0.5

_ENDED = (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.DEADLETTER)


def allowance(limit: int, generated: Iterable[TaskStatus]) -> int:
    """Return how many specs a project may get a day, from what became of its last generated ones.

    The limit times (landed + 1) / (decided + 1): it starts at the limit.
    """
    states = list(generated)[-WINDOW:]
    landed = sum(state is TaskStatus.COMPLETED for state in states)
    decided = sum(state in _ENDED for state in states)
    return limit * (landed + 1) // (decided + 1)


def failure_rate(ended: Sequence[TaskStatus]) -> float:
    """Return which part of the last tasks that ended did not end well; 0.0 where none ended."""
    states = [state for state in ended if state in _ENDED][:WINDOW]
    if not states:
        return 0.0
    return sum(state is not TaskStatus.COMPLETED for state in states) / len(states)


def within_day(times: Iterable[float], now: float) -> int:
    """Return how many of the times (Unix seconds) lie in the last 24 hours."""
    return sum(now - DAY < at <= now for at in times)
