"""reap_stuck: progress, not existence (nodes.md), watched from collection to collection."""

from __future__ import annotations

import structlog

from dispatch_controller.core import liveness
from dispatch_controller.core.liveness import Progress
from dispatch_controller.core.reports import EndedByUs
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.reaper.endings import end
from dispatch_controller.model import Cause, Collection, RunState, Task, TaskStatus
from dispatch_controller.store import tasks

log = structlog.get_logger(__name__)


class Watch:
    """Remembers for each lease when its task was last seen to move."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._progress: dict[str, Progress] = {}
        self._last_seen: dict[str, float] = {}

    def keep(self, leases: set[str]) -> None:
        """Forget the leases that are no longer held."""
        seen = self._context.knowledge.seen
        for lease in seen.keys() - leases:
            del seen[lease]
        self._progress = {lease: p for lease, p in self._progress.items() if lease in leases}
        self._last_seen = {lease: at for lease, at in self._last_seen.items() if lease in leases}

    def see(self, collection: Collection) -> None:
        """Take in what one complete answer of a node says."""
        for seen in collection.tasks:
            if seen.lease is None or seen.state is not RunState.RUNNING or not seen.alive:
                continue
            before = self._progress.get(seen.lease)
            self._progress[seen.lease] = (
                liveness.first_progress(collection.at, seen)
                if before is None
                else before.seen(collection.at, seen)
            )
            self._last_seen[seen.lease] = collection.at
            self._context.knowledge.seen[seen.lease] = seen

    async def reap_stuck(self) -> None:
        """End running tasks that do not move, or are far past their limit."""
        context = self._context
        context.watch.check()
        now = context.clock.wall()
        trusted = max(context.started_at, context.watch.last_jump)
        for task in await context.store.read(tasks.in_status, TaskStatus.RUNNING):
            lease = task.lease_owner or ""
            progress = self._progress.get(lease)
            if progress is None or self._last_seen[lease] < trusted:
                continue  # nothing was heard of it since time can be trusted
            if lease in context.knowledge.endings:
                continue
            why = liveness.stuck(
                task,
                progress,
                time_limit=self._time_limit(task),
                stuck_after=context.settings.stuck_after,
                trusted_since=trusted,
                now=now,
            )
            if why is not None:
                log.warning("stuck", task=task.id, node=task.node, why=why)
                await end(context, task, EndedByUs(Cause.TASK, why))

    def _time_limit(self, task: Task) -> float:
        extras = self._context.catalog.extras.get(task.spec_file)
        minutes = extras.timeout_minutes if extras else max(120, 4 * task.estimated_minutes)
        return minutes * 60.0
