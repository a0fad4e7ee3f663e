"""probe_workers: every enabled node is asked how it is, all at once."""

from __future__ import annotations

import math
from dataclasses import replace

import structlog
import trio

from dispatch_controller.core import checks
from dispatch_controller.executors import command
from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.loops.context import Context
from dispatch_controller.model import Node, Probe
from dispatch_controller.runtime.every import every
from dispatch_controller.store import nodes

log = structlog.get_logger(__name__)

FINGERPRINT_EVERY = 3000.0
"""Seconds between two looks at an agent program's version: ten cycles of the guardian."""


class ProbeWorkers:
    """The probe_workers loop (loops.md). `last_seen` is written by the controller's clock."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._written: dict[str, float] = {}
        self._asked: dict[str, float] = {}

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
                    nursery.start_soon(self._probe, node, name=f"probe {node.name}")
        contacts = {
            name: at
            for name, at in context.knowledge.contacts.items()
            if self._written.get(name) != at
        }
        if contacts:
            await context.store.write(nodes.seen, sorted(contacts.items()))
            self._written |= contacts

    async def _probe(self, node: Node) -> None:
        knowledge = self._context.knowledge
        transport = self._context.fleet.transport(node.name)
        if transport is None:
            return
        try:
            probe = await transport.probe(self._programs(node))
        except TransportLost as lost:
            if knowledge.problems.get(node.name) != str(lost):
                log.warning("probe failed", node=node.name, error=str(lost))
            knowledge.problems[node.name] = str(lost)
            knowledge.good_probes[node.name] = 0
            return
        knowledge.good_probes[node.name] = knowledge.good_probes.get(node.name, 0) + 1
        self._take_fingerprint(node, probe)
        if knowledge.answered(node.name, probe.at):
            self._context.wakes.scheduling.set()
            self._context.wakes.reaper.set()

    def _programs(self, node: Node) -> list[str]:
        """Whose version to ask: the node's agent, once in a while, and while it is missing."""
        last = self._asked.get(node.name, -math.inf)
        unfit = (node.name, node.executor) in self._context.knowledge.unfit
        if trio.current_time() - last < FINGERPRINT_EVERY and not unfit:
            return []
        executor = command(self._context.settings.executors, node.executor, node.api_mode)
        self._asked[node.name] = trio.current_time()
        return [executor.argv[0]] if executor and not executor.argv[0].startswith("{") else []

    def _take_fingerprint(self, node: Node, probe: Probe) -> None:
        """Keep the probe; a node whose agent program is missing gets no task of that executor."""
        knowledge = self._context.knowledge
        key = (node.name, node.executor)
        before = knowledge.probes.get(node.name)
        self._look_at_disk(node.name, probe)
        agents = probe.agents or (before.agents if before is not None else {})
        knowledge.probes[node.name] = replace(probe, agents=agents)
        missing = [name for name, found in probe.agents.items() if found.get("path") is None]
        if missing:
            knowledge.unfit[key] = f"{missing[0]} is not installed for the login on {node.name}"
        elif probe.agents and knowledge.unfit.pop(key, None) is not None:
            self._context.wakes.scheduling.set()

    def _look_at_disk(self, node: str, probe: Probe) -> None:
        """A node whose disk is full gets no task until it has room again."""
        full, used = self._context.knowledge.full, checks.disk_used(probe)
        if used is not None and used > checks.MOST_DISK:
            full[node] = f"out of room: its disk is {used:.0%} full"
        elif full.pop(node, None) is not None:
            self._context.wakes.scheduling.set()
