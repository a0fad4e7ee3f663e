"""collect_task_status and reap_ghosts: one round trip per node brings the state of all its tasks.

"No process for this row" is judged on rows read before the scan, and written under the same
lease; a node that did not answer says nothing about a task.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import structlog
import trio

from dispatch_controller.core import ids, liveness
from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.reaper.leases import may_settle, settle
from dispatch_controller.loops.reaper.stuck import Watch
from dispatch_controller.loops.recorder import Recorder
from dispatch_controller.loops.returning import give_back
from dispatch_controller.model import (
    HELD,
    Cause,
    Collection,
    Observation,
    RunState,
    Task,
    TaskStatus,
)
from dispatch_controller.store import tasks
from dispatch_controller.store.reputation import Merit

log = structlog.get_logger(__name__)

BROKEN_TWICE = 2
"""Collections for which a status.json must stay broken before it counts as failed."""


class Collector:
    """Brings in what the nodes say of their tasks."""

    def __init__(self, context: Context, recorder: Recorder, watch: Watch) -> None:
        self._context = context
        self._recorder = recorder
        self._watch = watch
        self._broken: Counter[str] = Counter()

    async def collect(self) -> None:
        """Ask every node at once; each answer is recorded as it comes."""
        context = self._context
        issued = set(context.knowledge.issued)
        held = await context.store.read(tasks.in_status, *HELD)
        fleet = sorted(context.knowledge.nodes) or sorted({task.node or "" for task in held})
        leases = {task.lease_owner or "" for task in held}
        self._watch.keep(leases)
        context.knowledge.issued -= issued - leases - context.knowledge.in_flight
        context.knowledge.ask_all = False
        by_node: defaultdict[str | None, list[Task]] = defaultdict(list)
        for task in held:
            by_node[task.node].append(task)
        async with trio.open_nursery() as nursery:
            for node in fleet:
                mine = by_node[node]
                nursery.start_soon(self._collect_node, node, mine, name=f"collect {node}")

    async def _collect_node(self, node: str, held: Sequence[Task]) -> None:
        context = self._context
        transport = context.fleet.transport(node)
        if transport is None:
            return
        in_flight = frozenset(context.knowledge.in_flight)
        try:
            collection = await transport.collect()
        except TransportLost as lost:
            context.knowledge.problems[node] = str(lost)
            log.debug("not collected", node=node, error=str(lost))
            return
        if context.knowledge.answered(node, collection.at):
            context.wakes.scheduling.set()
        self._watch.see(collection)
        readable = [seen for seen in collection.tasks if seen.state is not RunState.UNKNOWN]
        if readable:
            await self._recorder.acknowledge(await self._recorder.record(readable))
        await self._judge_rest(collection, held, in_flight)

    async def _judge_rest(
        self, collection: Collection, held: Sequence[Task], in_flight: frozenset[str]
    ) -> None:
        """Deal with held rows for which the node told no readable state."""
        told = {seen.lease: seen for seen in collection.tasks if seen.lease is not None}
        broken = {(s.project, s.folder): s for s in collection.tasks if s.lease is None}
        for task in held:
            lease = task.lease_owner or ""
            seen = told.get(lease) or broken.get((task.project, ids.folder_name(task.id)))
            if lease in in_flight or task.holding in self._context.knowledge.endings:
                continue  # what is to end is dealt with where it is ended: it never runs again
            if task.status is TaskStatus.CLAIMED:
                await self._judge_claimed(task, seen)
            elif seen is None or liveness.vanished(seen):
                await self._reap_ghost(task)
            elif seen.state is RunState.UNKNOWN:
                await self._count_broken(task, seen)
            else:
                self._broken.pop(lease, None)

    async def _judge_claimed(self, task: Task, seen: Observation | None) -> None:
        if not may_settle(self._context, task):
            return
        if seen is None or seen.state is RunState.UNKNOWN:
            await settle(self._context, self._recorder, task)
        elif liveness.vanished(seen):  # it began and went before its start was confirmed
            await self._reap_ghost(task)

    async def _reap_ghost(self, task: Task) -> None:
        context = self._context
        now = context.clock.wall()
        if not liveness.ghost(task, now):
            return
        why = f"no process of it on {task.node} and no final status"
        log.warning("ghost", task=task.id, node=task.node, attempt=task.attempt)
        await self._return(task, why)

    async def _count_broken(self, task: Task, seen: Observation) -> None:
        """A broken status.json is unknown; failed only without a process and twice in a row."""
        lease = task.lease_owner or ""
        if seen.alive:
            self._broken.pop(lease, None)
            return
        self._broken[lease] += 1
        if self._broken[lease] < BROKEN_TWICE:
            return
        self._broken.pop(lease)
        await self._return(task, f"its status.json on {task.node} stays unreadable")

    async def _return(self, task: Task, why: str) -> None:
        merit = self._context.merit(Merit.ORPHAN)
        await give_back(self._context, task, cause=Cause.NODE, why=why, merit=merit)
