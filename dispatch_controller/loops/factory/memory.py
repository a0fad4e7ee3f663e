"""The factory's memory: its own events, read once; and the budget, which is part of it."""

from __future__ import annotations

from typing import Any

import trio

from dispatch_controller.core import ledger as entries
from dispatch_controller.core.ledger import Ledger
from dispatch_controller.loops.context import Context
from dispatch_controller.settings_sections import ModelGenerator
from dispatch_controller.store import factory
from dispatch_controller.store.factory import Row


class Memory:
    """Writes the factory's events, and knows what they say."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ledger: Ledger | None = None
        self._lock = trio.Lock()

    async def ledger(self) -> Ledger:
        """Return what has been done so far."""
        async with self._lock:
            if self._ledger is None:
                found = Ledger()
                for at, row in await self._context.store.read(factory.remembered):
                    found.add(row.event_type, at, row.task_id, row.details)
                self._ledger = found
            return self._ledger

    async def record(self, *rows: Row) -> None:
        """Write events, all together, and remember them."""
        if not rows:
            return
        known = await self.ledger()
        now = self._context.clock.wall()
        await self._context.store.write(factory.add, now, rows)
        for row in rows:
            known.add(row.event_type, now, row.task_id, row.details)

    async def tell(self, event_type: str, *, task_id: str | None = None, **details: Any) -> None:  # noqa: ANN401
        """Write one event."""
        await self.record(Row(event_type, details, task_id))


class Purse:
    """The budget of the last 24 hours. A reservation is written before the call that it pays for.

    So a controller that is killed in the middle of a call has paid for all of it, not for none.
    """

    def __init__(self, memory: Memory, context: Context) -> None:
        self._memory = memory
        self._context = context
        self._lock = trio.Lock()

    async def reserve(self, generator: str, tokens: int, cost: float) -> str | None:
        """Set aside what a call may cost at most; return why not, or None."""
        limits: ModelGenerator = getattr(self._context.settings.factory, generator)
        async with self._lock:
            known = await self._memory.ledger()
            spent, paid = known.spent(generator, self._context.clock.wall())
            if spent + tokens > limits.daily_tokens:
                return (
                    f"the budget of {generator} does not allow it: {spent} of "
                    f"{limits.daily_tokens} tokens used in 24 hours, this call may need {tokens}"
                )
            if limits.daily_cost is not None and paid + cost > limits.daily_cost:
                return (
                    f"the budget of {generator} does not allow it: {paid:.4f} of "
                    f"{limits.daily_cost:g} spent in 24 hours, this call may cost {cost:.4f}"
                )
            await self._memory.tell(
                entries.MODEL_CALL, generator=generator, tokens=tokens, cost=cost
            )
            return None

    async def give_back(self, generator: str, tokens: int, cost: float) -> None:
        """Return what of a reservation was not used; negative where more was."""
        await self._memory.tell(entries.MODEL_CALL, generator=generator, tokens=-tokens, cost=-cost)
