"""Whether the factory asks a generator now, for which project, and for how many specs (loops.md).

Everything that `factory plan` says is decided here, and the loop does just that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dispatch_controller.core.allowance import WORST_RATE, allowance, failure_rate, within_day
from dispatch_controller.model import TaskStatus

_AT_WORK = (TaskStatus.PENDING, TaskStatus.CLAIMED, TaskStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings of one project, its own laid over those of all."""

    generator: str = "gaps"
    enabled: bool = True
    dry_run: bool = False
    per_day: int = 20
    iterate_tasks: int = 5
    iterate_completed: float = 0.7
    iterate_pause: float = 3600.0
    """Seconds."""
    executor: str | None = None
    checks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProjectState:
    """What the decision rests on."""

    name: str
    policy: Policy = field(default_factory=Policy)
    counts: Mapping[str, int] = field(default_factory=dict)
    """Tasks by status."""
    ended: tuple[TaskStatus, ...] = ()
    """The last tasks that ended, newest first."""
    generated: tuple[TaskStatus, ...] = ()
    """The last generated tasks, oldest first."""
    made: tuple[float, ...] = ()
    """When each generated spec was made, Unix seconds."""
    iterated: float | None = None
    """When the project was last asked for its next generation."""
    closed: str | None = None
    """Why nothing may be asked for it now: paused, no checkout, its generator waits."""

    def count(self, *statuses: TaskStatus) -> int:
        return sum(self.counts.get(status, 0) for status in statuses)


@dataclass(frozen=True, slots=True)
class Decision:
    """What one step does for one project; `wanted` is 0 where it does nothing."""

    project: str
    step: str
    wanted: int
    why: str


def room(state: ProjectState, now: float) -> tuple[int, str]:
    """Return how many specs the project may get now, and why so many or none."""
    if not state.policy.enabled:
        return 0, "the factory is off for this project"
    if state.closed is not None:
        return 0, state.closed
    rate = failure_rate(state.ended)
    if rate > WORST_RATE:
        return 0, f"{rate:.0%} of its last {min(len(state.ended), 20)} ended tasks failed"
    allowed = allowance(state.policy.per_day, state.generated)
    made = within_day(state.made, now)
    why = f"{made} of {allowed} made in 24 hours"
    if allowed < state.policy.per_day:
        why += f" (limit {state.policy.per_day}, cut by how the last generated ones ended)"
    return max(0, allowed - made), why


def iterate(state: ProjectState, per_cycle: int, now: float) -> Decision:
    """check_and_iterate_projects: is the project through, so that its next generation is due?"""
    step, policy = "check_and_iterate_projects", state.policy
    total, completed = sum(state.counts.values()), state.count(TaskStatus.COMPLETED)
    at_work = state.count(*_AT_WORK)
    why = None
    if total < policy.iterate_tasks:
        why = f"{total} tasks, fewer than {policy.iterate_tasks}"
    elif at_work:
        why = f"{at_work} tasks are pending or running"
    elif completed < policy.iterate_completed * total:
        why = f"{completed} of {total} completed, less than {policy.iterate_completed:.0%}"
    elif state.iterated is not None and now - state.iterated < policy.iterate_pause:
        why = f"iterated {(now - state.iterated) / 60:.0f} min ago"
    if why is not None:
        return Decision(state.name, step, 0, why)
    free, reason = room(state, now)
    if not free:
        return Decision(state.name, step, 0, reason)
    why = f"{completed} of {total} completed and none at work; {reason}"
    return Decision(state.name, step, min(free, per_cycle), why)


def top_up(
    states: Sequence[ProjectState], min_pending: int, per_cycle: int, now: float
) -> list[Decision]:
    """auto_generate_specs: whom to ask while too little is pending, fewest pending first.

    Each `wanted` is the most for that project; the caller stops at what `shortage` says in all.
    """
    step = "auto_generate_specs"
    pending = sum(state.count(TaskStatus.PENDING) for state in states)
    free = shortage(states, min_pending, per_cycle)
    decisions = []
    for state in sorted(states, key=lambda s: (s.count(TaskStatus.PENDING), s.name)):
        if not free:
            why = f"{pending} tasks are pending, no fewer than {min_pending}"
            decisions.append(Decision(state.name, step, 0, why))
            continue
        wanted, reason = room(state, now)
        why = f"{pending} of {min_pending} tasks pending; {reason}" if wanted else reason
        decisions.append(Decision(state.name, step, min(wanted, free), why))
    return decisions


def shortage(states: Sequence[ProjectState], min_pending: int, per_cycle: int) -> int:
    """Return how many specs auto_generate_specs may make in one cycle, over all projects."""
    pending = sum(state.count(TaskStatus.PENDING) for state in states)
    return max(0, min(per_cycle, min_pending - pending))
