"""Whether a task lives, moves, or has gone without a word. Pure; times are Unix seconds."""

from __future__ import annotations

from dataclasses import dataclass

from dispatch_controller.model import HELD, Observation, RunState, Task

OVERTIME = 300.0
"""Seconds past its limit after which the reaper ends a task: the wrapper should have."""

GHOST_AFTER = 120.0
"""Seconds since the claim before which "no process there" says nothing yet."""

LOST_AFTER = 180.0
"""Seconds without an answer after which a node is lost."""

CPU_MOVED = 0.1
"""Seconds of CPU that count as work; less is a runtime that idles."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What of a task had moved, and when we last saw it move.

    The heartbeat is not among it: the supervisor beats for a frozen agent too.
    """

    since: float
    cpu: float
    log_at: float
    log_size: int
    files_at: float

    def seen(self, now: float, seen: Observation) -> Progress:
        """Return the progress after one more observation.

        Older HTTP workers tell none of these: then nothing says that the task stands still.
        """
        cpu, log_at = seen.cpu_seconds or 0.0, seen.log_at or 0.0
        log_size, files_at = seen.log_size or 0, seen.files_at or 0.0
        silent = (seen.cpu_seconds, seen.log_at, seen.log_size, seen.files_at) == (None,) * 4
        moved = (
            silent
            or cpu - self.cpu >= CPU_MOVED
            or cpu < self.cpu  # a child that had used it has ended
            or log_at > self.log_at
            or log_size != self.log_size
            or files_at > self.files_at
        )
        return Progress(now, cpu, log_at, log_size, files_at) if moved else self


def first_progress(now: float, seen: Observation) -> Progress:
    """Return what to compare the next observation with: whoever looks first knows of no stop."""
    return Progress(
        now, seen.cpu_seconds or 0.0, seen.log_at or 0.0, seen.log_size or 0, seen.files_at or 0.0
    )


def stuck(
    task: Task,
    progress: Progress,
    *,
    time_limit: float,
    stuck_after: float,
    trusted_since: float,
    now: float,
) -> str | None:
    """Return why a running task is to be ended, or None.

    `trusted_since` is the latest of the process's start and the clock's last jump: no verdict
    counts time from before it (loops.md).
    """
    still = now - max(progress.since, trusted_since)
    if still > stuck_after:
        return f"stuck: no progress of any kind for {_span(still)}"
    if task.started_at is not None:
        ran = now - max(task.started_at, trusted_since)
        if ran > time_limit + OVERTIME:
            return f"ran for {_span(ran)}, its limit was {_span(time_limit)}"
    return None


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def vanished(seen: Observation) -> bool:
    """Whether an attempt that had begun is gone and left no final status (older wrappers)."""
    return seen.state is RunState.RUNNING and not seen.alive


def ghost(task: Task, now: float) -> bool:
    """Whether a held task of which its node has no process is gone: claimed long enough ago.

    Of one that is only claimed the node must have said that it had begun (`vanished`).
    """
    if task.status not in HELD:
        return False
    return task.started_at is None or now - task.started_at > GHOST_AFTER


def node_lost(
    contact: float | None, failed_since: bool, trusted_since: float, now: float
) -> float | None:
    """Return since when the node counts as lost, or None while it does not.

    Counted from the latest of its last answer, this process's start and the last clock jump, and
    only with a failed call since then.
    """
    if not failed_since:
        return None
    lost = max(contact or 0.0, trusted_since) + LOST_AFTER
    return lost if now > lost else None
