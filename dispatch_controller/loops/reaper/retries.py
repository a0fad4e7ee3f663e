"""retry_failed: every failed task is decided on (scheduling.md, Retries)."""

from __future__ import annotations

import structlog

from dispatch_controller.core.retry import BackOff, Bury, RetryAt, decide
from dispatch_controller.loops.context import Context
from dispatch_controller.store import history, transitions

log = structlog.get_logger(__name__)


async def retry_failed(context: Context) -> None:
    """Make failed tasks pending with a back-off, or bury them. The guardian's are left to it."""
    backoff = BackOff(context.settings.retry.base, context.settings.retry.limit)
    now = context.clock.wall()
    for task, past in await context.store.read(history.failed):
        decision = decide(task.attempt, task.max_retries, past, now, backoff, context.rng)
        if isinstance(decision, RetryAt):
            await context.store.write(
                transitions.retry, now, task.id, task.attempt, until=decision.until,
                max_retries=decision.max_retries, why=decision.why,
            )  # fmt: skip
        elif isinstance(decision, Bury):
            log.warning("deadletter", task=task.id, cause=decision.cause, why=decision.why)
            await context.store.write(
                transitions.bury, now, task.id, task.attempt, cause=decision.cause,
                why=decision.why,
            )  # fmt: skip
