"""A whole controller on the mock clock: real store, real loops, a fleet in memory."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from conftest import run_inline
from dispatch_controller.catalog import SpecCatalog
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.db_sync import DbSync
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
from dispatch_controller.store.connection import get_db
from dispatch_controller.store.events import Event
from dispatch_controller.store.store import Store
from dispatch_controller.store.writer import Connection
from tests.fakes import FakeNode, FakeTransport, Plan, Script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Loop = Callable[[], Awaitable[None]]

EPOCH = 1_790_000_000.0


class WorldFleet:
    """The registry over machines in memory."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._transports: dict[str, FakeTransport] = {}
        self.recorder: Recorder | None = None

    def transport(self, node: str) -> FakeTransport | None:
        return self._transports.get(node)

    def update(self, nodes: Sequence[Node]) -> None:
        world = self._world
        for node in nodes:
            machine = world.machines.get(node.name)
            if machine is None or node.name in self._transports or world.fleet_nursery is None:
                continue

            def report(seen: Sequence[Observation], name: str = node.name) -> None:
                assert self.recorder is not None
                self.recorder.take(name, seen)

            transport = FakeTransport(machine, report, world.clock)
            self._transports[node.name] = transport
            world.fleet_nursery.start_soon(transport.run)


class World:
    """Machines and files outlive the controllers that `controller()` runs over them."""

    def __init__(self, home: Path, seed: int = 1, **settings: object) -> None:
        self.home = home
        self.clock = TrioClock(EPOCH)
        self.settings = Settings.model_validate({"home": home, **settings})
        self.settings.specs.mkdir(exist_ok=True)
        self.rng = random.Random(seed)
        self.machines: dict[str, FakeNode] = {}
        self.fleet_nursery: trio.Nursery | None = None
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
        machine = self.machines[name] = FakeNode(name, self.clock, script)
        return machine

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
        async with trio.open_nursery() as nursery:
            self.fleet_nursery = nursery
            await nursery.start(context.store.run)
            context.knowledge.endings |= await context.store.read(endings.standing)
            for name, loop in self.loops.items():
                nursery.start_soon(self._supervised, context, name, loop, name=name)
            yield context
            nursery.cancel_scope.cancel()
        self.fleet_nursery = None

    async def _supervised(self, context: Context, name: str, loop: Loop) -> None:
        await supervise(loop, context.stats[name], stop=context.stop, policy=RestartPolicy())

    def build(self) -> Context:
        fleet = WorldFleet(self)
        context = Context(
            store=Store(self.db, run_inline),
            fleet=fleet,
            settings=self.settings,
            clock=self.clock,
            watch=ClockWatch(self.clock),
            run_sync=run_inline,
            catalog=SpecCatalog(self.home),
            rng=self.rng,
            token=lambda: f"{self.rng.getrandbits(32):08x}",
            started_at=self.clock.wall(),
        )
        recorder = fleet.recorder = Recorder(context)
        registrar = Registrar(context)
        self.context, self.operator = context, Operator(context)
        self.loops = {
            "scheduling": Scheduling(context, recorder).run,
            "health_check": HealthCheck(context, Lag()).run,
            "probe_workers": ProbeWorkers(context).run,
            "db_sync": DbSync(context, registrar).run,
            "reaper": Reaper(context, recorder).run,
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
