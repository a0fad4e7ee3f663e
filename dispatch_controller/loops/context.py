"""What app.py hands to every loop."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import trio

from dispatch_controller.catalog import SpecCatalog
from dispatch_controller.fleet.transport import Machine, Transport
from dispatch_controller.loops.knowledge import Knowledge
from dispatch_controller.loops.workers import WorkerRegistry
from dispatch_controller.model import Node
from dispatch_controller.runtime.clock import Clock, ClockWatch
from dispatch_controller.runtime.every import Wake
from dispatch_controller.runtime.stats import LoopStats
from dispatch_controller.runtime.threads import RunSync
from dispatch_controller.settings import Settings
from dispatch_controller.store.reputation import Merit
from dispatch_controller.store.store import Store

LOOPS = (
    "scheduling", "health_check", "probe_workers", "db_sync", "reaper", "guardian", "factory",
)  # fmt: skip


class FleetView(Protocol):
    """What loops use of fleet.registry.Fleet."""

    def transport(self, node: str) -> Transport | None: ...

    def update(self, nodes: Sequence[Node]) -> None: ...

    def machine(self, name: str) -> Machine | None: ...

    def root(self, name: str) -> str | None: ...

    async def check_connection(self, name: str) -> float: ...

    def reconnect(self, name: str) -> None: ...

    def wrapper_of(self, name: str) -> str | None: ...


@dataclass(slots=True)
class Wakes:
    """Who is asked to step early. app.py sets them all at a stop."""

    scheduling: Wake = field(default_factory=Wake)
    health_check: Wake = field(default_factory=Wake)
    probe_workers: Wake = field(default_factory=Wake)
    db_sync: Wake = field(default_factory=Wake)
    reaper: Wake = field(default_factory=Wake)
    guardian: Wake = field(default_factory=Wake)
    factory: Wake = field(default_factory=Wake)

    def of(self, loop: str) -> Wake:
        wake: Wake = getattr(self, loop)
        return wake

    def set_all(self) -> None:
        for loop in LOOPS:
            self.of(loop).set()


@dataclass(slots=True)
class Context:
    """The parts, built once by app.py (or by a test) and shared by all loops."""

    store: Store
    fleet: FleetView
    settings: Settings
    clock: Clock
    watch: ClockWatch
    run_sync: RunSync
    catalog: SpecCatalog
    rng: random.Random
    token: Callable[[], str]
    """Returns the eight hex digits of a new lease."""
    knowledge: Knowledge = field(default_factory=Knowledge)
    workers: WorkerRegistry = field(default_factory=WorkerRegistry)
    wakes: Wakes = field(default_factory=Wakes)
    stop: trio.Event = field(default_factory=trio.Event)
    stats: dict[str, LoopStats] = field(
        default_factory=lambda: {name: LoopStats(name) for name in LOOPS}
    )
    started_at: float = 0.0
    """Unix seconds of the start of this process."""

    def merit(self, merit: Merit) -> Merit | None:
        """What an event does to a node's reputation; None where that table does not exist."""
        return merit if self.reputation else None

    @property
    def reputation(self) -> bool:
        """Whether this database has the table node_reputation."""
        return "node_reputation" not in self.store.absent
