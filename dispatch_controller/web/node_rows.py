"""Nodes as /v1/status and /api/v1 show them: the row, what it holds, and how it is."""

from __future__ import annotations

from typing import Any

from dispatch_controller.core.times import iso
from dispatch_controller.loops.context import Context
from dispatch_controller.model import Node
from dispatch_controller.store import nodes, views
from dispatch_controller.store.writer import Connection


async def node_rows(context: Context, now: float) -> list[dict[str, Any]]:
    """Return all nodes by name."""
    fleet, held = await context.store.read(_read, context.reputation)
    return [_row(context, node, held.get(node.name, {}), now) for node in fleet]


def _read(conn: Connection, reputation: bool) -> tuple[list[Node], dict[str, dict[str, int]]]:
    return nodes.all_nodes(conn, reputation=reputation), views.held_by_node(conn)


def _row(context: Context, node: Node, held: dict[str, int], now: float) -> dict[str, Any]:
    knowledge = context.knowledge
    claimed, running = held.get("claimed", 0), held.get("running", 0)
    probe = knowledge.probes.get(node.name)
    seen = max(filter(None, (node.last_seen, knowledge.contacts.get(node.name))), default=None)
    return {
        "name": node.name,
        "ssh_host": node.ssh_host,
        "slots": node.slots,
        "api_mode": node.api_mode,
        "work_dir": node.work_dir,
        "running_count": node.running_count,
        "last_seen": None if seen is None else iso(seen),
        "enabled": int(node.enabled),
        "executor": node.executor,
        "priority": node.priority,
        "quarantined": node.quarantined,
        "quarantine_reason": node.quarantine_reason,
        "reachable": knowledge.in_touch(node.name, now),
        "claimed": claimed,
        "running": running,
        "free": max(0, node.slots - claimed - running),
        "last_error": knowledge.problems.get(node.name),
        "way": _way(context, node),
        "worker_url": context.workers.url(node.name, now),
        "pulls": context.workers.pulls(node.name, now),
        "load": None if probe is None else probe.load and list(probe.load),
        "memory_total": None if probe is None else probe.memory_total,
        "memory_free": None if probe is None else probe.memory_free,
        "disk_total": None if probe is None else probe.disk_total,
        "disk_free": None if probe is None else probe.disk_free,
        "clock_skew": None if probe is None else probe.clock_skew,
        "round_trip": None if probe is None else probe.round_trip,
    }


def _way(context: Context, node: Node) -> str:
    """Return how the node is reached now: `worker`, `ssh` or `local`."""
    if context.workers.serves(node.name):
        return "worker"
    return "local" if node.ssh_host is None else "ssh"
