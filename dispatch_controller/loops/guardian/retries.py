"""auto_retry_failed_tasks: more retries for failures that were not the task's own fault."""

from __future__ import annotations

import structlog

from dispatch_controller.core.retry import BackOff, Extend, decide, extend
from dispatch_controller.loops.context import Context
from dispatch_controller.store import history, transitions

log = structlog.get_logger(__name__)


async def auto_retry_failed_tasks(context: Context) -> None:
    """Give what the reaper leaves to the guardian max_retries = attempt + 5 (scheduling.md)."""
    backoff = BackOff(context.settings.retry.base, context.settings.retry.limit)
    now = context.clock.wall()
    for task, past in await context.store.read(history.failed):
        decision = decide(task.attempt, task.max_retries, past, now, backoff, context.rng)
        if not isinstance(decision, Extend):
            continue
        granted = extend(task.attempt, past, now, backoff, context.rng)
        last = past.failures[-1] if past.failures else None
        timeout = last is not None and (last.reason == "timeout" or last.exit_code == 124)
        await context.store.write(
            transitions.retry, now, task.id, task.attempt, until=granted.until,
            max_retries=granted.max_retries, why=granted.why,
            extended="timeout" if timeout else "cause",
        )  # fmt: skip
        log.info("more retries granted", task=task.id, max_retries=granted.max_retries)
