"""What an attempt made whose supervisor is gone is saved before its task goes elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog
import trio

from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.loops.context import Context
from dispatch_controller.model import Observation

log = structlog.get_logger(__name__)

MOST_TRIES = 3
"""Then the task goes on without: a full disk, say. What it made stays in its folder, where the next
attempt on that node saves it before anything else."""


class Rescue:
    """Has the node save such work; whoever ended well or was ended has saved its own."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._under_way: set[str | None] = set()
        """Leases."""
        self._failures: Counter[str | None] = Counter()

    def concerns(self, seen: Observation) -> bool:
        """Return whether `seen` is an attempt whose work must be saved before it is recorded."""
        lost = seen.reason == "supervisor_lost" and seen.lease is not None
        return lost and seen.salvage is None

    def begin(
        self,
        seen: Observation,
        nursery: trio.Nursery,
        land: Callable[[Observation], Awaitable[None]],
    ) -> None:
        """Save in `nursery`, then give on to `land` what is to be recorded.

        Where the node gives no answer nothing is recorded: it tells the end again.
        """

        async def run() -> None:
            try:
                found = await self._save(seen)
                if found is not None:
                    await land(found)
            finally:
                self._under_way.discard(seen.lease)

        if seen.lease not in self._under_way:
            self._under_way.add(seen.lease)
            nursery.start_soon(run, name=f"rescue {seen.task_id}")

    async def _save(self, seen: Observation) -> Observation | None:
        transport = self._context.fleet.transport(seen.node)
        if transport is None:
            return seen
        try:
            saved = await transport.salvage(seen.project, seen.folder)
        except TransportLost as lost:
            self._failures[seen.lease] += 1
            log.warning("not salvaged", task=seen.task_id, node=seen.node, error=str(lost))
            if self._failures[seen.lease] < MOST_TRIES:
                return None
            saved = None
        del self._failures[seen.lease]
        return replace(seen, salvage=saved)
