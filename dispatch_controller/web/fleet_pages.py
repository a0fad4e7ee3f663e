"""What the pages of nodes and of the fleet's condition show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dispatch_controller.core.times import parse_iso
from dispatch_controller.model import Probe
from dispatch_controller.store import events, pages
from dispatch_controller.store.pages import Reputation
from dispatch_controller.web.node_rows import node_rows
from dispatch_controller.web.overview import health, loops, state_of
from dispatch_controller.web.parts import Parts
from dispatch_controller.web.task_pages import event_line

EVENTS = 50


@dataclass(frozen=True, slots=True)
class NodeCard:
    row: dict[str, Any]
    state: str
    """One of well, lost, out, off and unknown: its mark and colour."""
    words: str
    seen_at: float | None
    probe: Probe | None
    reputation: Reputation | None
    unfit: tuple[tuple[str, str], ...]
    """(executor, why it cannot run here)."""


async def nodes(here: Parts) -> dict[str, Any]:
    """Return all nodes by name."""
    context = here.context
    rows = await node_rows(context, here.now)
    scores = await context.store.read(pages.reputations) if context.reputation else {}
    return {"nodes": [_card(here, row, scores.get(row["name"])) for row in rows]}


def _card(here: Parts, row: dict[str, Any], reputation: Reputation | None) -> NodeCard:
    knowledge, name = here.context.knowledge, row["name"]
    unfit = tuple(
        (executor, why) for (node, executor), why in sorted(knowledge.unfit.items()) if node == name
    )
    seen_at = parse_iso(row["last_seen"])
    return NodeCard(row, *state_of(row), seen_at, knowledge.probes.get(name), reputation, unfit)


async def condition(here: Parts) -> dict[str, Any]:
    """Return incidents, findings, loops, and the newest events."""
    context = here.context
    told = await context.store.read(events.page, None, EVENTS)
    return {
        "health": await health(here),
        "loops": loops(context, here.now),
        "events": [(event.task_id, event_line(event)) for event in told],
        "started_at": context.started_at,
        "queued": context.store.depth,
        "parked": {
            f"{executor} ({mode})": parked.until
            for (executor, mode), parked in context.knowledge.parked.items()
            if parked.until > here.now
        },
    }
