"""The way back to pending of an attempt that never ran, or is gone without a result."""

from __future__ import annotations

from dispatch_controller.loops.context import Context
from dispatch_controller.model import Cause
from dispatch_controller.store import transitions
from dispatch_controller.store.reputation import Merit


async def give_back(
    context: Context,
    task_id: str,
    lease: str,
    *,
    cause: Cause,
    why: str,
    hold: float = 0.0,
    merit: Merit | None = None,
) -> None:
    """Return the task to pending, held back for `hold` seconds.

    One that the operator cancelled meanwhile ends instead: it never runs again.
    """
    now = context.clock.wall()
    ending = context.knowledge.endings.pop(lease or task_id, None)
    if ending is not None and ending.cancelled:
        await context.store.write(transitions.cancel, now, task_id, lease=lease, why=ending.why)
    else:
        await context.store.write(
            transitions.give_back, now, task_id, lease, cause=cause, why=why,
            until=now + hold if hold else None, merit=merit,
        )  # fmt: skip
    context.wakes.scheduling.set()
