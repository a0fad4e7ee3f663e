"""Which nodes are served by their HTTP worker (nodes.md, Transports).

The way is chosen anew only while a node holds no task: another way would not find what runs there,
and take it for gone. A node whose way is about to change gets no new task until it has.
"""

from __future__ import annotations

import structlog

from dispatch_controller.loops.context import Context
from dispatch_controller.store import views, ways

log = structlog.get_logger(__name__)


async def recall_ways(context: Context) -> None:
    """Take over, at the start, the ways of nodes that hold tasks."""
    context.workers.remember(await context.store.read(ways.of_holding_nodes))


async def follow_ways(context: Context) -> None:
    """Choose anew where that is possible."""
    now, workers = context.clock.wall(), context.workers
    changing = workers.changing(context.knowledge.nodes, now)
    if not changing:
        return
    held = await context.store.read(views.held_by_node)
    free = {node for node in changing if node not in held or not workers.decided(node)}
    before = {node: workers.serves(node) for node in free}
    wanted = {node: workers.wanted(node, now) for node in free}
    news = {node: way for node, way in wanted.items() if way != before[node]}
    if news:
        await context.store.write(ways.add, now, news)
        log.info("ways to nodes", by_worker=[n for n in sorted(news) if news[n]],
                 direct=[n for n in sorted(news) if not news[n]])  # fmt: skip
    workers.remember(wanted)
