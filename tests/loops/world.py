"""A whole controller on the mock clock: real store, real loops, a fleet in memory."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

import trio

from conftest import run_inline
from dispatch_controller.catalog import SpecCatalog
from dispatch_controller.fleet.transport import Machine, TransportLost
from dispatch_controller.loops.alerts import Alerts
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.db_sync import DbSync
from dispatch_controller.loops.findings import Findings
from dispatch_controller.loops.guardian import Guardian
from dispatch_controller.loops.health_check import HealthCheck
from dispatch_controller.loops.operator import Operator
from dispatch_controller.loops.probe_workers import ProbeWorkers
from dispatch_controller.loops.reaper import Reaper
from dispatch_controller.loops.recorder import Recorder
from dispatch_controller.loops.registrar import Registrar
from dispatch_controller.loops.scheduling import Scheduling
from dispatch_controller.model import Node, Observation
from dispatch_controller.runtime.clock import ClockWatch, TrioClock
from dispatch_controller.runtime.lag import Lag
from dispatch_controller.runtime.supervise import RestartPolicy, supervise
from dispatch_controller.settings import Settings
from dispatch_controller.store import endings, events, tasks
from dispatch_controller.store.connection import Connect, get_db
from dispatch_controller.store.events import Event
from dispatch_controller.store.store import Store
from dispatch_controller.store.writer import Connection
from tests.fakes import FakeNode, FakeTransport, Plan, Script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Loop = Callable[[], Awaitable[None]]
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH = 1_790_000_000.0


class WorldFleet:
    """The registry over machines in memory."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ways: dict[str, tuple[FakeTransport, trio.CancelScope]] = {}
        self.recorder: Recorder | None = None

    def transport(self, node: str) -> FakeTransport | None:
        way = self._ways.get(node)
        return None if way is None else way[0]

    def update(self, nodes: Sequence[Node]) -> None:
        """Have a way to each of these nodes, and to no other."""
        names = {node.name for node in nodes}
        for name in [name for name in self._ways if name not in names]:
            self._ways.pop(name)[1].cancel()
        for name in sorted(names - self._ways.keys()):
            machine, nursery = self._world.machines.get(name), self._world.nursery
            if machine is not None and nursery is not None:
                way = self._ways[name] = (self._build(machine), trio.CancelScope())
                nursery.start_soon(self._run, *way, name=f"way to {name}")

    def machine(self, name: str) -> Machine | None:
        """No host behind a fake node that one could bring files to."""
        return None

    def root(self, name: str) -> str | None:
        return None

    async def check_connection(self, name: str) -> float:
        transport = self.transport(name)
        if transport is None:
            raise TransportLost(name, "no such machine")
        return (await transport.probe()).round_trip

    def reconnect(self, name: str) -> None:
        """Nothing to do: a fake node's channel is there when the node is up."""

    def wrapper_of(self, name: str) -> str | None:
        machine = self._world.machines.get(name)
        return None if machine is None else machine.wrapper

    def _build(self, machine: FakeNode) -> FakeTransport:
        def report(seen: Sequence[Observation]) -> None:
            assert self.recorder is not None
            self.recorder.take(machine.name, seen)

        return FakeTransport(machine, report, self._world.clock)

    async def _run(self, transport: FakeTransport, scope: trio.CancelScope) -> None:
        with scope:
            await transport.run()


class World:
    """Machines and files outlive the controllers that `controller()` runs over them."""

    def __init__(self, home: Path, seed: int = 1, **settings: object) -> None:
        self.home = home
        self.clock = TrioClock(EPOCH)
        self.settings = Settings.model_validate({"home": home, **settings})
        self.settings.specs.mkdir(exist_ok=True)
        self.rng = random.Random(seed)
        self.machines: dict[str, FakeNode] = {}
        self.slots: dict[str, int] = {}
        self.listed: set[str] = set()
        """Nodes that are in nodes.json, once that is written."""
        self._entries: dict[str, dict[str, object]] = {}
        self.nursery: trio.Nursery | None = None
        """Of the controller that runs; gone with it."""
        self.connect: Connect = get_db
        self.after_call: Callable[[], None] = lambda: None
        """Called after every blocking call, so after every read and every commit."""
        self.context: Context
        self.operator: Operator

    # --- what there is

    def node(
        self, name: str, slots: int = 4, executor: str = "shell",
        script: Script = lambda order: Plan(), **columns: object,
    ) -> FakeNode:  # fmt: skip
        """Add a machine, and its row in `nodes`."""
        with get_db(self.db) as conn:
            values = {"name": name, "slots": slots, "executor": executor, **columns}
            names = ", ".join(values)
            marks = ", ".join("?" for _ in values)
            conn.execute(f"INSERT INTO nodes ({names}) VALUES ({marks})", tuple(values.values()))
        self.slots[name] = slots
        self._entries[name] = {"name": name, "slots": slots, "executor": executor, **columns}
        self.listed.add(name)
        machine = self.machines[name] = FakeNode(name, self.clock, script)
        return machine

    def write_nodes(self) -> None:
        """Write nodes.json with the `listed` nodes; without it the table alone counts."""
        entries = [self._entries[name] for name in sorted(self.listed)]
        (self.home / "nodes.json").write_text(json.dumps({"nodes": entries}))

    def spec(
        self, task_id: str, project: str = "demo", depends_on: Iterable[str] = (),
        modifies: Iterable[str] | None = None, executor: str = "shell", **front: object,
    ) -> Path:  # fmt: skip
        """Write a spec file."""
        lines = {
            "task_id": task_id,
            "project": project,
            "executor": executor,
            "depends_on": list(depends_on),
            "modifies": list(modifies if modifies is not None else [f"{task_id}.txt"]),
            **front,
        }
        folder = self.settings.specs / project
        folder.mkdir(exist_ok=True)
        path = folder / f"{task_id}.md"
        text = "\n".join(f"{key}: {value!r}" for key, value in lines.items())
        path.write_text(
            f"---\n{text.replace('True', 'true')}\n---\n# {task_id}\n\n```sh\ntrue\n```\n"
        )
        return path

    @property
    def db(self) -> Path:
        return self.home / "dispatch.db"

    # --- running it

    @asynccontextmanager
    async def controller(self) -> AsyncIterator[Context]:
        """Run a controller; at the end it is killed as by kill -9: nothing is told."""
        context = self.build()
        try:
            async with trio.open_nursery() as self.nursery:
                await self.nursery.start(context.store.run)
                context.knowledge.endings |= await context.store.read(endings.standing)
                await self.findings.load()
                for name, loop in self.loops.items():
                    self.nursery.start_soon(self._supervised, context, name, loop, name=name)
                yield context
                self.kill()
        finally:
            self.nursery = None

    def kill(self) -> None:
        """End the controller that runs, here and now."""
        if self.nursery is not None:
            self.nursery.cancel_scope.cancel()

    async def run_sync(
        self, fn: Callable[[*Ts], T], /, *args: *Ts, limiter: trio.CapacityLimiter | None = None
    ) -> T:
        try:
            return await run_inline(fn, *args, limiter=limiter)
        finally:
            self.after_call()

    async def _supervised(self, context: Context, name: str, loop: Loop) -> None:
        await supervise(loop, context.stats[name], stop=context.stop, policy=RestartPolicy())

    def build(self) -> Context:
        fleet = WorldFleet(self)
        context = Context(
            store=Store(self.db, self.run_sync, connect=self.connect),
            fleet=fleet,
            settings=self.settings,
            clock=self.clock,
            watch=ClockWatch(self.clock),
            run_sync=self.run_sync,
            catalog=SpecCatalog(self.home),
            rng=self.rng,
            token=lambda: f"{self.rng.getrandbits(32):08x}",
            started_at=self.clock.wall(),
        )
        recorder = fleet.recorder = Recorder(context)
        registrar = Registrar(context)
        self.context, self.operator = context, Operator(context)
        self.findings = Findings(context, Alerts(context))
        self.loops = {
            "scheduling": Scheduling(context, recorder).run,
            "health_check": HealthCheck(context, Lag(), self.findings).run,
            "probe_workers": ProbeWorkers(context).run,
            "db_sync": DbSync(context, registrar).run,
            "reaper": Reaper(context, recorder).run,
            "guardian": Guardian(context, self.findings).run,
        }
        return context

    # --- asking it

    def status(self) -> dict[str, str]:
        with get_db(self.db) as conn:
            return {
                row["id"]: row["status"]
                for row in conn.execute("SELECT id, status FROM tasks ORDER BY id")
            }

    def row(self, task_id: str) -> dict[str, Any]:
        with get_db(self.db) as conn:
            row = tasks.row(Connection(conn), task_id)
        assert row is not None, task_id
        return row

    def events(self, task_id: str) -> list[Event]:
        with get_db(self.db) as conn:
            return events.of_task(Connection(conn), task_id)

    def event_types(self, task_id: str) -> list[str]:
        return [event.event_type for event in self.events(task_id)]

    async def until(self, limit: float, **wanted: str) -> None:
        """Wait until the tasks are in these states (`S1="completed"`), at most `limit` seconds."""
        deadline = trio.current_time() + limit
        names = {name.replace("_", "-"): status for name, status in wanted.items()}
        while any(self.status().get(name) != status for name, status in names.items()):
            assert trio.current_time() < deadline, self.status()
            await trio.sleep(0.5)

    async def settled(self, limit: float) -> None:
        """Wait until every task is completed or in deadletter, at most `limit` seconds."""
        deadline = trio.current_time() + limit
        while not self.status() or set(self.status().values()) - {"completed", "deadletter"}:
            assert trio.current_time() < deadline, self.status()
            await trio.sleep(1.0)
