"""A controller's door on a real socket: real store, real HTTP, a fleet in memory, no loops.

The clock is the machine's own. What loops would do, a test asks for: `schedule()` runs one pass.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

from dispatch_controller.catalog import SpecCatalog
from dispatch_controller.fleet.transport import Machine
from dispatch_controller.loops.alerts import Alerts
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.findings import Findings
from dispatch_controller.loops.health_check import HealthCheck
from dispatch_controller.loops.operator import Operator
from dispatch_controller.loops.recorder import Recorder
from dispatch_controller.loops.registrar import Registrar
from dispatch_controller.loops.scheduling import Scheduling
from dispatch_controller.model import Node
from dispatch_controller.runtime.clock import ClockWatch, SystemClock
from dispatch_controller.runtime.lag import Lag
from dispatch_controller.runtime.threads import in_thread
from dispatch_controller.settings import Settings
from dispatch_controller.store import nodes
from dispatch_controller.store.connection import get_db
from dispatch_controller.store.schema import prepare
from dispatch_controller.store.store import Store
from dispatch_controller.web.application import build_application
from dispatch_controller.web.server import serve
from tests.fakes import FakeNode, FakeTransport, Plan, Script

JSON = {"Content-Type": "application/json"}


class Machines:
    """The registry over machines in memory; one without a machine is an HTTP worker's."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self.nodes: dict[str, FakeNode] = {}

    def add(self, name: str, script: Script = lambda order: Plan()) -> FakeNode:
        machine = self.nodes[name] = FakeNode(name, self._clock, script)
        return machine

    def transport(self, node: str) -> FakeTransport | None:
        machine = self.nodes.get(node)
        return None if machine is None else FakeTransport(machine, lambda seen: None, self._clock)

    def update(self, nodes: Sequence[Node]) -> None: ...

    def machine(self, name: str) -> Machine | None:
        return None

    def root(self, name: str) -> str | None:
        return None

    async def check_connection(self, name: str) -> float:
        return 0.0

    def reconnect(self, name: str) -> None: ...

    def wrapper_of(self, name: str) -> str | None:
        return None


@dataclass
class Serving:
    """What runs, and ways to look at it."""

    url: str
    http: httpx.AsyncClient
    context: Context
    operator: Operator
    scheduling: Scheduling
    machines: Machines
    finished: trio.Event = field(default_factory=trio.Event)
    """Set when the server has drained."""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def add_node(self, name: str, slots: int = 4, **columns: object) -> None:
        """Add a row of `nodes`, as db_sync does."""
        values = {"name": name, "slots": slots, "executor": "shell", **columns}
        with get_db(self.context.store.path) as conn:
            names, marks = ", ".join(values), ", ".join("?" for _ in values)
            conn.execute(f"INSERT INTO nodes ({names}) VALUES ({marks})", tuple(values.values()))
        rows = await self.context.store.read(nodes.all_nodes)
        self.context.knowledge.nodes = {row.name: row for row in rows}

    async def add_tasks(self, *ids: str, project: str = "shop", **more: object) -> None:
        """Create tasks over HTTP."""
        for task_id in ids:
            body = {
                "project": project, "task_id": task_id, "executor": "shell",
                "modifies": [f"{task_id}.txt"], "body": "```sh\ntrue\n```", **more,
            }  # fmt: skip
            answer = await self.http.post("/api/v1/tasks", json=body)
            assert answer.status_code == 201, answer.text

    async def schedule(self) -> None:
        """Run one pass, and the pushes that it decided."""
        async with trio.open_nursery() as self.scheduling._pushes:
            await self.scheduling.step(1)

    async def post(self, path: str, **body: object) -> httpx.Response:
        return await self.http.post(path, json=body)

    async def data(self, path: str, **query: Any) -> Any:  # noqa: ANN401 - JSON
        answer = await self.http.get(f"/api/v1/{path}", params=query)
        body = answer.json()
        assert body["ok"] is True, body
        return body["data"]

    def row(self, task_id: str) -> dict[str, Any]:
        with get_db(self.context.store.path) as conn:
            return dict(conn.execute("SELECT * FROM tasks WHERE id = ?", (task_id,)).fetchone())

    def dump(self) -> list[tuple[Any, ...]]:
        """Everything in tasks and events: to see that nothing was written."""
        with get_db(self.context.store.path) as conn:
            return [
                tuple(row)
                for table in ("tasks", "events", "nodes", "file_locks")
                for row in conn.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
            ]

    def event_types(self, task_id: str) -> list[str]:
        with get_db(self.context.store.path) as conn:
            rows = conn.execute(
                "SELECT event_type FROM events WHERE task_id = ? ORDER BY id", (task_id,)
            )
            return [row["event_type"] for row in rows]

    async def claim(self, node: str, *ids: str) -> dict[str, str]:
        """Have these tasks claimed for a worker that polls; return its leases by task."""
        await self.post("/v1/poll", node_id=node, slots_free=0)
        await self.schedule()
        polled = (await self.post("/v1/poll", node_id=node, slots_free=100)).json()
        leases = {task["task_id"]: task["lease_owner"] for task in polled["tasks"]}
        assert set(ids) <= set(leases), (ids, leases)
        return leases

    async def running(self, node: str, *ids: str) -> dict[str, str]:
        """Have these tasks running on a worker; return their leases."""
        leases = await self.claim(node, *ids)
        listed = [{"task_id": task, "lease_owner": leases[task]} for task in ids]
        beat = await self.post("/v1/heartbeat", node_id=node, running_tasks=listed)
        assert beat.json()["kill"] == []
        return leases


Serve = Callable[..., Any]


@asynccontextmanager
async def serving(home: Path, **settings: object) -> AsyncIterator[Serving]:
    """Serve a home; the server is stopped at the end, as the controller stops it."""
    database = home / "dispatch.db"
    prepare(database)
    clock = SystemClock()
    machines = Machines(clock)
    context = Context(
        store=Store(database, in_thread),
        fleet=machines,
        settings=Settings.model_validate({"home": home, "port": 0, **settings}),
        clock=clock,
        watch=ClockWatch(clock),
        run_sync=in_thread,
        catalog=SpecCatalog(home),
        rng=random.Random(1),
        token=lambda: secrets.token_hex(4),
        started_at=clock.wall(),
    )
    recorder, operator = Recorder(context), Operator(context)
    health = HealthCheck(context, Lag(), Findings(context, Alerts(context)))
    door = build_application(context, recorder, Registrar(context), operator, health)
    async with trio.open_nursery() as nursery:
        await nursery.start(context.store.run)
        finished = trio.Event()

        async def run(*, task_status: trio.TaskStatus[str]) -> None:
            await serve(door, context.settings, stop=context.stop, task_status=task_status)
            finished.set()

        url: str = await nursery.start(run)
        url = url.replace("0.0.0.0", "127.0.0.1")
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
            scheduling = Scheduling(context, recorder)
            yield Serving(url, http, context, operator, scheduling, machines, finished)
        context.stop.set()
        with trio.fail_after(15):
            await finished.wait()
        nursery.cancel_scope.cancel()
