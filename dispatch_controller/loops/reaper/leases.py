"""cleanup_stale_leases, and the settling of starts whose outcome is not known."""

from __future__ import annotations

import structlog
import trio

from dispatch_controller.core import ids, liveness
from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.recorder import Recorder
from dispatch_controller.loops.returning import give_back
from dispatch_controller.model import HELD, Adopted, Cause, Task, TaskRef, TaskStatus
from dispatch_controller.store import tasks, transitions
from dispatch_controller.store.reputation import Merit

log = structlog.get_logger(__name__)


def ref_of(task: Task) -> TaskRef:
    """Return how the task's node knows its attempt."""
    return TaskRef(task.project, ids.folder_name(task.id), task.lease_owner or "")


async def settle(context: Context, recorder: Recorder, task: Task) -> None:
    """Have the node void the lease of a claimed task, or adopt what it started.

    Only the node's acknowledgement returns the task to pending (scheduling.md, Started at most
    once per attempt). A node that gives no answer is asked again in the next cycle.
    """
    transport = context.fleet.transport(task.node or "")
    if transport is None:
        return
    try:
        outcome = await transport.void(ref_of(task))
    except TransportLost as lost:
        log.debug("not settled", task=task.id, node=task.node, error=str(lost))
        return
    if isinstance(outcome, Adopted):
        log.info("adopted", task=task.id, node=task.node, attempt=task.attempt)
        await recorder.acknowledge(await recorder.record([outcome.observation]))
        return
    why = f"its start on {task.node} was not confirmed and is void"
    ours = (task.started_at or 0.0) >= context.started_at  # else it was the controller that died
    merit = context.merit(Merit.TIME_OUT) if ours else None
    await give_back(context, task, cause=Cause.NODE, why=why, merit=merit)


def may_settle(context: Context, task: Task) -> bool:
    """Whether the start of a claimed task is this controller's to settle.

    Ours is what this process gave out, or an earlier one did; another program's claim is left to it
    until its lease has run out.
    """
    knowledge = context.knowledge
    lease = task.lease_owner or ""
    if lease in knowledge.in_flight or task.holding in knowledge.endings:
        return False
    before_us = (task.started_at or 0.0) < context.started_at
    return lease in knowledge.issued or before_us or not task.leased(context.clock.wall())


async def settle_claims(context: Context, recorder: Recorder) -> None:
    """Settle every start whose outcome is not known, all at once."""
    claimed = await context.store.read(tasks.in_status, TaskStatus.CLAIMED)
    async with trio.open_nursery() as nursery:
        for task in claimed:
            if may_settle(context, task):
                nursery.start_soon(settle, context, recorder, task, name=f"settle {task.id}")


async def cleanup_stale_leases(context: Context) -> None:
    """Clear expired leases of pending tasks; free tasks of nodes that are lost for too long."""
    now = context.clock.wall()
    if await context.store.read(transitions.has_expired, now):
        await context.store.write(transitions.clear_expired, now)
        context.wakes.scheduling.set()
    trusted = max(context.started_at, context.watch.last_jump)
    for task in await context.store.read(tasks.in_status, *HELD):
        node = task.node or ""
        lost_since = liveness.node_lost(
            context.knowledge.contacts.get(node),
            node in context.knowledge.problems or context.fleet.transport(node) is None,
            trusted,
            now,
        )
        if lost_since is None or task.lease_owner in context.knowledge.in_flight:
            continue
        if now - lost_since > task.visibility_timeout and not _renewed(task, now):
            why = f"node {node} has been lost for {(now - lost_since) / 60:.0f} min"
            log.warning("task of a lost node", task=task.id, node=node)
            await give_back(context, task, cause=Cause.NODE, why=why)


def _renewed(task: Task, now: float) -> bool:
    """Whether the lease itself still runs: somebody heard of the task after all."""
    return task.lease_expires_at is not None and task.lease_expires_at > now
