"""check_dag_stuck: pending tasks that nothing will free, or that nothing places."""

from __future__ import annotations

from dispatch_controller.core import checks
from dispatch_controller.core.placement import Reason
from dispatch_controller.loops.conditions import reasons
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.findings import Findings
from dispatch_controller.model import Task, TaskStatus
from dispatch_controller.store import tasks
from dispatch_controller.store.writer import Connection

WAITING = ("dependencies", "cycle", "unknown_dependency")
"""Reasons that say the task could not run even with every slot free."""
MOST_LOOKED_AT = 5000
"""Pending tasks looked at in one cycle, in the pass's order; the others have their turn later."""


class Graph:
    """Remembers since when each pending task could have run."""

    def __init__(self, context: Context, findings: Findings) -> None:
        self._context = context
        self._findings = findings
        self._ready_since: dict[str, float] = {}

    async def check_dag_stuck(self) -> None:
        context = self._context
        now = context.clock.wall()
        pending, parents, statuses = await context.store.read(_read)
        why = await reasons(context, [task.id for task in pending])
        self._follow(why, now)
        dead = await context.run_sync(_dead_chains, pending, parents, statuses)
        found = checks.dag_stuck(pending, why, dead, self._ready_since, now)
        await self._findings.report("check_dag_stuck", found)

    def _follow(self, why: dict[str, Reason], now: float) -> None:
        self._ready_since = {
            task_id: self._ready_since.get(task_id, now)
            for task_id, reason in why.items()
            if reason.kind not in WAITING
        }


Read = tuple[list[Task], dict[str, tuple[str, ...]], dict[str, TaskStatus]]


def _read(conn: Connection) -> Read:
    """Return the pending tasks looked at, and dependencies and states of all open tasks."""
    pending = tasks.pending(conn, MOST_LOOKED_AT)
    parents, statuses = tasks.open_graph(conn)
    return pending, parents, statuses


def _dead_chains(
    pending: list[Task], parents: dict[str, tuple[str, ...]], statuses: dict[str, TaskStatus]
) -> dict[str, tuple[str, ...]]:
    if TaskStatus.DEADLETTER not in statuses.values():
        return {}
    chains = {task.id: checks.dead_chain(task.id, parents, statuses) for task in pending}
    return {task_id: chain for task_id, chain in chains.items() if chain is not None}
