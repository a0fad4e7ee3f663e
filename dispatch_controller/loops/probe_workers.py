"""probe_workers: every enabled node is asked how it is, all at once."""

from __future__ import annotations

import structlog
import trio

from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.loops.context import Context
from dispatch_controller.runtime.every import every
from dispatch_controller.store import nodes

log = structlog.get_logger(__name__)


class ProbeWorkers:
    """The probe_workers loop (loops.md). `last_seen` is written by the controller's clock."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._written: dict[str, float] = {}

    async def run(self) -> None:
        context = self._context
        await every(
            self.step,
            context.stats["probe_workers"],
            interval=context.settings.loops.probe_workers.interval,
            wake=context.wakes.probe_workers,
            stop=context.stop,
            clock=context.clock,
        )

    async def step(self, cycle: int) -> None:
        """Probe all, then write last_seen of those that have answered since the last step."""
        context = self._context
        async with trio.open_nursery() as nursery:
            for node in context.knowledge.nodes.values():
                if node.enabled:
                    nursery.start_soon(self._probe, node.name, name=f"probe {node.name}")
        contacts = {
            name: at
            for name, at in context.knowledge.contacts.items()
            if self._written.get(name) != at
        }
        if contacts:
            await context.store.write(nodes.seen, sorted(contacts.items()))
            self._written |= contacts

    async def _probe(self, node: str) -> None:
        knowledge = self._context.knowledge
        transport = self._context.fleet.transport(node)
        if transport is None:
            return
        programs = sorted(
            {e.argv[0] for e in self._context.settings.executors.values() if e.argv} - {"{shell}"}
        )
        try:
            probe = await transport.probe(programs)
        except TransportLost as lost:
            if knowledge.problems.get(node) != str(lost):
                log.warning("probe failed", node=node, error=str(lost))
            knowledge.problems[node] = str(lost)
            return
        knowledge.probes[node] = probe
        for key in [key for key in knowledge.unfit if key[0] == node]:
            del knowledge.unfit[key]  # a start finds out anew, or the fingerprint says so
        if knowledge.answered(node, probe.at):
            self._context.wakes.scheduling.set()
            self._context.wakes.reaper.set()
