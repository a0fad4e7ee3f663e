"""The way back to pending of an attempt that never ran, or is gone without a result."""

from __future__ import annotations

from dispatch_controller.core.retry import MOST_STARTS, pause
from dispatch_controller.loops.context import Context
from dispatch_controller.model import Cause, Task
from dispatch_controller.store import transitions
from dispatch_controller.store.reputation import Merit
from dispatch_controller.store.transitions import Ending


async def give_back(
    context: Context,
    task: Task,
    *,
    cause: Cause,
    why: str,
    hold: float = 0.0,
    merit: Merit | None = None,
) -> None:
    """Return a held task to pending, held back longer with each start (`hold` seconds at least).

    One that the operator cancelled meanwhile ends instead: it never runs again. So does one that
    has had its last start: it fails, and is buried by the retry.
    """
    now, lease = context.clock.wall(), task.lease_owner or ""
    knowledge = context.knowledge
    knowledge.failed_on[task.id] = task.node or ""
    ending = knowledge.endings.pop(task.holding, None)
    if ending is not None and ending.cancelled:
        await context.store.write(transitions.cancel, now, task.id, lease=lease, why=ending.why)
    elif task.attempt >= MOST_STARTS:
        await context.store.write(
            transitions.finish, now, task.id, lease, task.attempt,
            Ending(completed=False, error=why),
            {"cause": cause, "reason": "returned", "error": why},
        )  # fmt: skip
        context.wakes.reaper.set()
    else:
        wait = pause(task.attempt, hold)
        await context.store.write(
            transitions.give_back, now, task.id, lease, cause=cause, why=why,
            until=now + wait if wait else None, merit=merit,
        )  # fmt: skip
    context.wakes.scheduling.set()
