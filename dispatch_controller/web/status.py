"""The body of /v1/status."""

from __future__ import annotations

from typing import Any

from dispatch_controller import __version__
from dispatch_controller.core.times import iso
from dispatch_controller.store import tasks
from dispatch_controller.web.node_rows import node_rows
from dispatch_controller.web.parts import Parts


async def status_body(here: Parts) -> dict[str, Any]:
    """Return how the controller, its loops and its nodes are, as http.md has it."""
    context, now = here.context, here.now
    counts = await context.store.read(tasks.counts)
    return {
        "status": "OK",
        "version": __version__,
        "uptime": max(0.0, now - context.started_at),
        "tasks": counts,
        "loops": {
            name: {
                "cycle": stats.cycle,
                "last_ok": None if stats.last_ok is None else iso(stats.last_ok),
                "last_error": stats.last_error,
                "restarts": stats.restarts,
            }
            for name, stats in context.stats.items()
        },
        "nodes": await node_rows(context, now),
        "timestamp": iso(now),
    }
