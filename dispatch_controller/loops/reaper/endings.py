"""Tasks that the controller has ended: by its own verdict, or because the operator cancelled.

The wish is an event first, so that it survives a restart; the node's word ends it. Slot and files
stay held until then (scheduling.md, States).
"""

from __future__ import annotations

import contextlib

import structlog

from dispatch_controller.core.liveness import vanished
from dispatch_controller.core.reports import EndedByUs
from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.reaper.leases import ref_of
from dispatch_controller.loops.recorder import Recorder
from dispatch_controller.model import (
    HELD,
    Adopted,
    Cause,
    KillOutcome,
    Task,
    TaskStatus,
    VoidOutcome,
)
from dispatch_controller.store import endings, tasks, transitions
from dispatch_controller.store.transitions import Ending

log = structlog.get_logger(__name__)

GRACE = 30.0
"""Seconds between TERM and KILL."""


async def end(context: Context, task: Task, ending: EndedByUs) -> None:
    """Have the process of a held task ended; what its node then says is recorded with `ending`."""
    await context.store.write(endings.add, context.clock.wall(), task, ending)
    context.knowledge.endings[task.holding] = ending
    context.wakes.reaper.set()


async def finish_endings(context: Context, recorder: Recorder) -> None:
    """Tell the nodes, again and again, until each task that is to end has ended."""
    wanted = dict(context.knowledge.endings)
    if not wanted:
        return
    held = await context.store.read(tasks.in_status, *HELD)
    for ended in wanted.keys() - {task.holding for task in held}:
        context.knowledge.endings.pop(ended, None)
    for task in held:
        ending = wanted.get(task.holding)
        if ending is not None and task.lease_owner not in context.knowledge.in_flight:
            await _finish(context, recorder, task, ending)


async def _finish(context: Context, recorder: Recorder, task: Task, ending: EndedByUs) -> None:
    transport = context.fleet.transport(task.node or "")
    if transport is None:
        return
    running = task.status is TaskStatus.RUNNING
    outcome: VoidOutcome | None = None
    try:
        if running and await transport.kill(ref_of(task), GRACE) is not KillOutcome.GONE:
            return  # its end will be told
        # Its start is not confirmed, or it has no process any more: perhaps because it came to its
        # own end at this very moment. The node knows which.
        with contextlib.suppress(TransportLost) if running else contextlib.nullcontext():
            outcome = await transport.void(ref_of(task))
    except TransportLost as lost:
        log.debug("not ended yet", task=task.id, node=task.node, error=str(lost))
        return
    seen = outcome.observation if isinstance(outcome, Adopted) else None
    claimed = task.status is TaskStatus.CLAIMED
    if seen is not None and (seen.state.final or (claimed and not vanished(seen))):
        await recorder.acknowledge(await recorder.record([seen]))
    else:
        await _write_end(context, task, ending)


async def _write_end(context: Context, task: Task, ending: EndedByUs) -> None:
    """The node has no process of it and told no final status: it has ended."""
    now, lease = context.clock.wall(), task.lease_owner or ""
    if ending.cancelled:
        await context.store.write(transitions.cancel, now, task.id, lease=lease, why=ending.why)
    else:
        await context.store.write(
            transitions.finish, now, task.id, lease, task.attempt,
            Ending(completed=False, error=ending.why),
            {"cause": Cause(ending.cause), "reason": "killed", "error": ending.why},
        )  # fmt: skip
    context.knowledge.endings.pop(task.holding, None)
    context.wakes.scheduling.set()
