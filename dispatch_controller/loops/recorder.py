"""Takes what machines say of tasks and has it recorded: pushed, collected or reported alike.

Everything that comes in while a batch is being written becomes the next batch. What is recorded
is acknowledged to the node only after COMMIT, so a lost report is told again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import structlog
import trio

from dispatch_controller.core.reports import Beat, Confirm, Finish, GiveBack, Known, Stale
from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.loops import salvage
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.merging import Merging
from dispatch_controller.loops.rescue import Rescue
from dispatch_controller.model import Observation, TaskRef
from dispatch_controller.runtime.every import Wake
from dispatch_controller.store import reports
from dispatch_controller.store.reports import Recorded

log = structlog.get_logger(__name__)


class Recorder:
    """Records observations. `run` is a child of the reaper; `record` serves everybody."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._inbox: list[Observation] = []
        self._filled = Wake()
        self._acks = trio.CapacityLimiter(32)
        self._merging = Merging(context)
        self._rescue = Rescue(context)
        self._nursery: trio.Nursery | None = None

    def take(self, node: str, observations: Sequence[Observation]) -> None:
        """Queue what a node told unasked (nothing at all is an answer too). Does not block."""
        if self._context.knowledge.answered(node, self._context.clock.wall()):
            self._context.wakes.scheduling.set()
        if observations:
            self._inbox.extend(observations)
            self._filled.set()

    def wake(self) -> None:
        """End `run` at a stop."""
        self._filled.set()

    async def run(self) -> None:
        """Record what `take` queues, until the stop."""
        stop = self._context.stop
        try:
            async with trio.open_nursery() as self._nursery:
                while not (stop.is_set() and not self._inbox):
                    await self._filled.wait()
                    self._filled.clear()
                    batch, self._inbox = self._inbox, []
                    if batch:
                        recorded = await self.record(batch)
                        self._nursery.start_soon(self._acknowledge, recorded, name="acknowledge")
                    elif stop.is_set():
                        return
        finally:
            self._nursery = None

    async def record(self, observations: Sequence[Observation]) -> list[Recorded]:
        """Return what became of each observation, once it is committed.

        Those that must be merged or saved first are missing: they are recorded when that is done.
        While `run` does not run they are left alone, and their node tells them again.
        """
        ready = []
        for seen in observations:
            first = next((f for f in (self._merging, self._rescue) if f.concerns(seen)), None)
            if first is None:
                ready.append(seen)
            elif self._nursery is not None:
                first.begin(seen, self._nursery, self._land)
        return await self._record(ready)

    async def record_one(self, seen: Observation) -> Recorded | None:
        """Return what became of one observation, merged first where it must be.

        None where it could not be merged now: whoever told it must tell it again.
        """
        if self._merging.concerns(seen):
            merged = await self._merging.merge(seen)
            if merged is None:
                return None
            seen = merged
        return (await self._record([seen]))[0]

    async def _land(self, seen: Observation) -> None:
        await self._acknowledge(await self._record([seen]))

    async def _record(self, observations: Sequence[Observation]) -> list[Recorded]:
        if not observations:
            return []
        context = self._context
        recorded = await context.store.write(
            reports.apply,
            context.clock.wall(),
            observations,
            dict(context.knowledge.endings),
            reputation=context.reputation,
            owned_fails=context.knowledge.owned_fails,
        )
        freed = False
        for one in recorded:
            freed |= self._learn(one)
        if freed:
            context.wakes.scheduling.set()
        return recorded

    async def acknowledge(self, recorded: Sequence[Recorded]) -> None:
        """Tell the nodes what need not be told again."""
        await self._acknowledge(recorded)

    def _learn(self, one: Recorded) -> bool:
        """Remember what has no column; return whether a slot or a dependency became free."""
        knowledge, seen = self._context.knowledge, one.seen
        if isinstance(one.verdict, Beat) and seen.lease is not None:
            knowledge.seen[seen.lease] = seen
            if seen.waiting_input and seen.lease not in knowledge.waiting:
                knowledge.waiting.add(seen.lease)
                self._context.wakes.guardian.set()  # told at once
        if not one.changed or one.task is None or isinstance(one.verdict, Confirm):
            return False
        knowledge.endings.pop(one.task.holding, None)
        knowledge.waiting.discard(one.task.lease_owner or "")
        task_id = one.task.id
        if isinstance(one.verdict, Finish) and one.verdict.completed:
            if seen.wrapper is not None and seen.wrapper != knowledge.good_wrapper:
                knowledge.good_wrapper = seen.wrapper
                self._context.wakes.guardian.set()
            knowledge.failed_on.pop(task_id, None)
            knowledge.last_error.pop(task_id, None)
            log.info("task completed", task=task_id, node=seen.node, attempt=one.task.attempt)
            return True
        knowledge.failed_on[task_id] = seen.node
        error = getattr(one.verdict, "error", None) or getattr(one.verdict, "why", None)
        if error:
            knowledge.last_error[task_id] = error
        if seen.reason == "rate_limited":
            knowledge.park(seen.node, seen.rate_limited_until, self._context.clock.wall())
        if isinstance(one.verdict, Finish):
            self._context.wakes.reaper.set()  # its retry is decided at once
        log.info(
            "task ended", task=task_id, node=seen.node, attempt=one.task.attempt,
            cause=getattr(one.verdict, "cause", None), error=error,
        )  # fmt: skip
        return isinstance(one.verdict, Finish | GiveBack)

    async def _acknowledge(self, recorded: Sequence[Recorded]) -> None:
        """A node that does not hear it tells again, and is acknowledged then."""
        for one in recorded:
            if one.changed:
                await salvage.fetch(self._context, one.seen)
        refs: defaultdict[str, list[TaskRef]] = defaultdict(list)
        for one in recorded:
            seen = one.seen
            if seen.state.final and seen.lease is not None and _settled(one):
                refs[seen.node].append(TaskRef(seen.project, seen.folder, seen.lease))
        for node, ended in sorted(refs.items()):
            transport = self._context.fleet.transport(node)
            if transport is None:
                continue
            try:
                async with self._acks:
                    await transport.ack(ended)
            except TransportLost as lost:
                log.debug("not acknowledged", node=node, error=str(lost))


def _settled(one: Recorded) -> bool:
    """Whether the node need not tell it again.

    A stale report under the lease that the task still has is a muddled one: acknowledged, it would
    silence the true end of that very attempt.
    """
    if isinstance(one.verdict, Stale):
        return one.task is None or one.task.lease_owner != one.seen.lease
    return one.changed or isinstance(one.verdict, Known)
