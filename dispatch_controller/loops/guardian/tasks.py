"""check_task_stuck, and the tasks that died lately."""

from __future__ import annotations

from dispatch_controller.core import checks
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.findings import Findings
from dispatch_controller.model import Task, TaskStatus
from dispatch_controller.store import events, tasks
from dispatch_controller.store.writer import Connection


async def check_task_stuck(context: Context, findings: Findings) -> None:
    """Tell long-running tasks, those that wait for input, and those whose heartbeat is stale."""
    running = await context.store.read(tasks.in_status, TaskStatus.RUNNING)
    found = checks.task_stuck(running, context.knowledge.seen, context.clock.wall())
    await findings.report("check_task_stuck", found)


async def check_deadletters(context: Context, findings: Findings) -> None:
    """Tell the tasks that died within a day, under their root cause."""
    now = context.clock.wall()
    dead = await context.store.read(_recently_dead, now - checks.RECENTLY_DEAD)
    await findings.report("deadletter", checks.deadletters(dead, now))


def _recently_dead(conn: Connection, since: float) -> list[tuple[Task, str, str]]:
    dead = tasks.dead_since(conn, since)
    if not dead:
        return []
    told = events.of_types(conn, [task.id for task in dead], ["task_deadletter"])
    found = []
    for task in dead:
        last = told[task.id][-1].details if told[task.id] else {}
        found.append((task, str(last.get("cause", "unknown")), str(last.get("why", task.error))))
    return found
