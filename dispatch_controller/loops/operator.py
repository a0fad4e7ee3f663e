"""What the operator may do, whether by command line, API or dashboard."""

from __future__ import annotations

from dispatch_controller.core import ids
from dispatch_controller.core.reports import EndedByUs
from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.reaper.endings import end
from dispatch_controller.model import HELD, Cause, LogChunk, Task, TaskStatus
from dispatch_controller.store import events, nodes, reputation, tasks, transitions
from dispatch_controller.store.writer import Connection


class NotFound(Exception):
    """There is no such task or node; the text names it."""


class NotPossible(Exception):
    """Its state does not allow that; the text says why."""


class Operator:
    """The operator's commands. Each raises NotFound or NotPossible."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def retry(self, task_id: str) -> None:
        """Deadletter or failed → pending, from the first attempt on."""
        task = await self._task(task_id)
        context = self._context
        if not await context.store.write(transitions.revive, context.clock.wall(), task.id):
            raise NotPossible(
                f"{task.id} is {task.status}: only a failed or deadletter task can be retried"
            )
        context.knowledge.failed_on.pop(task.id, None)
        context.wakes.scheduling.set()

    async def cancel(self, task_id: str) -> bool:
        """Any but completed → deadletter; return False while its process is still being ended."""
        task = await self._task(task_id)
        context = self._context
        why = "cancelled by the operator"
        if task.status in HELD:
            await end(context, task, EndedByUs(Cause.OPERATOR, why, cancelled=True))
            return False
        done = await context.store.write(
            transitions.cancel, context.clock.wall(), task.id, lease=None, why=why
        )
        if done:
            return True
        now_is = (await self._task(task_id)).status
        if now_is is TaskStatus.DEADLETTER:
            return True
        if now_is in HELD:
            return await self.cancel(task_id)
        raise NotPossible(f"{task.id} is {now_is}: it has ended already")

    async def set_enabled(self, name: str, enabled: bool) -> None:
        """Throw the operator's switch of a node."""
        context = self._context

        def switch(conn: Connection, now: float) -> bool:
            if not nodes.set_enabled(conn, name, enabled):
                return False
            events.add(conn, now, "node_enabled" if enabled else "node_disabled", node=name)
            return True

        if not await context.store.write(switch, context.clock.wall()):
            raise NotFound(f"there is no node {name}")
        context.wakes.db_sync.set()
        context.wakes.scheduling.set()

    async def lift_quarantine(self, name: str) -> None:
        """Take a node out of quarantine."""
        context = self._context
        fleet = await context.store.read(nodes.all_nodes, reputation=context.reputation)
        if name not in {node.name for node in fleet}:
            raise NotFound(f"there is no node {name}")
        if not context.reputation or not await context.store.write(
            reputation.release, context.clock.wall(), name,
            score=reputation.RECOVERED, why="lifted by the operator",
        ):  # fmt: skip
            raise NotPossible(f"{name} is not in quarantine")
        context.wakes.scheduling.set()

    async def read_log(
        self, task_id: str, offset: int, limit: int, name: str = "task.log"
    ) -> LogChunk:
        """Return part of a task's log, from the node that has or had it."""
        task = await self._task(task_id)
        node = task.node
        transport = None if node is None else self._context.fleet.transport(node)
        if transport is None:
            raise NotPossible(f"{task.id} is on no node: it has no log yet")
        try:
            return await transport.read_log(
                task.project, ids.folder_name(task.id), offset, limit, name
            )
        except TransportLost as lost:
            raise NotPossible(
                f"the log of {task.id} is on {node}, which gave no answer: {lost}"
            ) from lost

    async def _task(self, task_id: str) -> Task:
        task = await self._context.store.read(tasks.get, task_id)
        if task is None:
            raise NotFound(f"there is no task {task_id}")
        return task
