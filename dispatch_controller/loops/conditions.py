"""What a pass, and an explanation, know beside the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dispatch_controller.core.placement import Conditions, Reason
from dispatch_controller.executors import command
from dispatch_controller.loops.context import Context
from dispatch_controller.model import SpecExtras
from dispatch_controller.store import board


def conditions(context: Context, now: float) -> Conditions:
    """Return it as it is now; the value does not change later."""
    knowledge, workers = context.knowledge, context.workers
    asked = knowledge.contacts.keys() | knowledge.problems.keys()
    changing = workers.changing(knowledge.nodes, now)
    return Conditions(
        extras=context.catalog.extras,
        alive=knowledge.alive(now),
        unasked=frozenset(knowledge.nodes.keys() - asked),
        failed_on=dict(knowledge.failed_on),
        parked={key: parked.until for key, parked in knowledge.parked.items()},
        paused=knowledge.paused,
        unfit={**knowledge.unfit, **_without_command(context)},
        closed={**knowledge.full, **dict.fromkeys(changing, "changing the way it is reached")},
        most=workers.most_slots(),
    )


def _without_command(context: Context) -> dict[tuple[str, str], str]:
    """Nodes whose executor the settings do not know: nothing could be started there."""
    executors = context.settings.executors
    return {
        (node.name, node.executor): f"no executor {node.executor} in the settings: add"
        f" [executors.{node.executor}]"
        for node in context.knowledge.nodes.values()
        if command(executors, node.executor, node.api_mode) is None
    }


def refresh(context: Context, spec_files: Sequence[str]) -> Mapping[str, SpecExtras]:
    """Read those spec files that changed; blocks, so call it in a thread."""
    context.catalog.refresh(spec_files)
    return context.catalog.extras


async def reasons(context: Context, ids: Sequence[str]) -> dict[str, Reason]:
    """Return why each of the pending tasks among `ids` is not running."""
    now = context.clock.wall()
    return await context.store.read(
        board.explain,
        ids,
        conditions(context, now),
        context.knowledge.cycles,
        lambda spec_files: refresh(context, spec_files),
        now,
        reputation=context.reputation,
    )
