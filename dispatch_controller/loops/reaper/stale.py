"""cleanup_stale_processes: processes that this home started and that no row owns any more.

"No row owns this process" is judged on rows read after the scan. Nothing but what the wrapper
keeps for this home's owner id is ever touched; the wrapper salvages before it ends.
"""

from __future__ import annotations

import structlog
import trio

from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.reaper.endings import GRACE
from dispatch_controller.model import HELD, Observation, TaskRef
from dispatch_controller.store import events, tasks
from dispatch_controller.store.writer import Connection

log = structlog.get_logger(__name__)


async def cleanup_stale_processes(context: Context) -> None:
    """Ask every node once, and end what no claimed or running row owns."""
    async with trio.open_nursery() as nursery:
        for node in sorted(context.knowledge.nodes):
            nursery.start_soon(_clean_node, context, node, name=f"stale {node}")


async def _clean_node(context: Context, node: str) -> None:
    transport = context.fleet.transport(node)
    if transport is None:
        return
    try:
        collection = await transport.collect()
        alive = [seen for seen in collection.tasks if seen.alive]
        rows = await context.store.read(tasks.by_ids, sorted({s.task_id or "" for s in alive}))
        owned = {row.lease_owner for row in rows.values() if row.status in HELD}
        for seen in alive:
            if seen.lease is None or seen.task_id is None or seen.lease in owned:
                continue
            ref = TaskRef(seen.project, seen.folder, seen.lease)
            outcome = await transport.kill(ref, GRACE)
            log.warning("stale process", node=node, task=seen.task_id, outcome=outcome)
            await context.store.write(_write_event, context.clock.wall(), seen, str(outcome))
    except TransportLost as lost:
        log.debug("stale processes not looked for", node=node, error=str(lost))


def _write_event(conn: Connection, now: float, seen: Observation, outcome: str) -> None:
    events.add(
        conn, now, "stale_process", task_id=seen.task_id, node=seen.node, lease=seen.lease,
        outcome=outcome,
    )  # fmt: skip
