"""auto_recover_nodes: a quarantine whose time is over ends, if the node answers."""

from __future__ import annotations

import structlog

from dispatch_controller.loops.context import Context
from dispatch_controller.store import reputation

log = structlog.get_logger(__name__)

QUARANTINE = 1800.0
"""Seconds."""
GOOD_PROBES = 3


async def auto_recover_nodes(context: Context) -> None:
    """Release nodes that sat out their quarantine and answered the last three probes."""
    if not context.reputation:
        return
    now = context.clock.wall()
    for one in await context.store.read(reputation.quarantined):
        over = now - one.since >= QUARANTINE
        if over and context.knowledge.good_probes.get(one.node, 0) >= GOOD_PROBES:
            await context.store.write(
                reputation.release, now, one.node, score=reputation.RECOVERED,
                why="its time is over and it answers",
            )  # fmt: skip
            log.info("node recovered", node=one.node)
            context.wakes.scheduling.set()
