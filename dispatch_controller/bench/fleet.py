"""The controller's part of a large fleet: a reaper cycle and a probe cycle over 200 nodes.

The nodes are in memory and answer within half a second with all that a real one tells; database,
loops, records and threads are the real ones, in a process of their own. What SSH costs comes on
top: one round trip per node (see `latency`).
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from dispatch_controller.bench.figure import Figure, milliseconds
from dispatch_controller.catalog import SpecCatalog
from dispatch_controller.fleet.transport import Machine
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.probe_workers import ProbeWorkers
from dispatch_controller.loops.reaper import Reaper
from dispatch_controller.loops.recorder import Recorder
from dispatch_controller.model import Collection, Node, Observation, Probe, RunState, TaskRef
from dispatch_controller.runtime.clock import ClockWatch, SystemClock
from dispatch_controller.runtime.threads import in_thread
from dispatch_controller.settings import Settings
from dispatch_controller.store import nodes
from dispatch_controller.store.plain_writes import fill_running
from dispatch_controller.store.schema import prepare
from dispatch_controller.store.store import Store

NODES, EACH, CYCLES = 200, 25, 3
PROGRAM = "from dispatch_controller.bench.fleet import cycles; cycles()"
SPREAD = 0.5
"""Seconds within which the answers come in: no network brings 200 in one instant."""
BYTES = 1024 if sys.platform != "darwin" else 1
"""What ru_maxrss counts in."""


def measure() -> list[Figure]:
    """Return the longest of some cycles, the lag of the event loop, and the memory in use."""
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    found = json.loads(told.stdout)
    size = f"{NODES} nodes in memory, {NODES * EACH} running tasks"
    return [
        Figure(f"a reaper cycle, {size}", milliseconds(found["reaper"]), "under 5 s",
               found["reaper"] < 5),
        Figure("a probe cycle", milliseconds(found["probe"]), "under 5 s", found["probe"] < 5),
        Figure("the event loop was late by", f"at most {milliseconds(found['late'])}",
               "under 100 ms", found["late"] < 0.1),
        Figure("memory of the process", f"{found['memory'] / 2**20:.0f} MiB", "under 200 MB",
               found["memory"] < 200e6),
    ]  # fmt: skip


class _Node:
    """A node whose tasks all run and move."""

    def __init__(self, name: str, started: float) -> None:
        self.node = name
        self._rng = random.Random(name)  # noqa: S311 - no secret
        self._started = started
        self.tasks = [f"{name}-T{number:02}" for number in range(EACH)]

    async def collect(self) -> Collection:
        await trio.sleep(self._rng.uniform(0, SPREAD))
        now = SystemClock().wall()
        return Collection(self.node, now, tuple(self._seen(task, now) for task in self.tasks))

    def _seen(self, task: str, now: float) -> Observation:
        return Observation(
            node=self.node, project="p", folder=task, task_id=task, lease=f"{self.node}:{task}",
            attempt=1, state=RunState.RUNNING, alive=True, pid=4000, started_at=self._started,
            heartbeat_at=now, cpu_seconds=now - self._started, log_at=now, log_size=int(now),
            files_at=now, log_file=f"p/tasks/{task}/task.log",
        )  # fmt: skip

    async def probe(self, programs: Sequence[str] = ()) -> Probe:
        await trio.sleep(self._rng.uniform(0, SPREAD))
        return Probe(
            node=self.node, at=SystemClock().wall(), round_trip=0.001, clock_skew=0.0,
            load=(0.1, 0.1, 0.1), cpus=8, memory_total=1 << 34, memory_free=1 << 33,
            disk_total=1 << 40, disk_free=1 << 39, wrapper="0" * 64, python="3.12.0",
            git="2.40.0", boot_id="boot", agents={},
        )  # fmt: skip

    async def ack(self, refs: Sequence[TaskRef]) -> None:
        await trio.lowlevel.checkpoint()


class _Fleet:
    def __init__(self, machines: dict[str, _Node]) -> None:
        self.machines = machines

    def transport(self, node: str) -> _Node | None:
        return self.machines.get(node)

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


async def _cycles(home: Path) -> dict[str, float]:
    clock = SystemClock()
    started = clock.wall()
    machines = {f"n{n:03}": _Node(f"n{n:03}", started) for n in range(NODES)}
    path = home / "dispatch.db"
    prepare(path)
    fill_running(path, {name: machine.tasks for name, machine in machines.items()}, started)
    store = Store(path, in_thread)
    context = Context(
        store=store, fleet=_Fleet(machines),  # type: ignore[arg-type] # all that is asked here
        settings=Settings(home=home), clock=clock, watch=ClockWatch(clock), run_sync=in_thread,
        catalog=SpecCatalog(home), rng=random.Random(1),  # noqa: S311 - no secret
        token=lambda: "00000000", started_at=started,
    )  # fmt: skip
    context.knowledge.nodes = {
        row.name: row for row in await store.read(nodes.all_nodes, reputation=True)
    }
    reaper, prober = Reaper(context, Recorder(context)), ProbeWorkers(context)
    took = {"reaper": 0.0, "probe": 0.0}
    late = [0.0]
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        nursery.start_soon(_watch, late)
        for cycle in range(1, CYCLES + 1):
            for name, step in (("probe", prober.step), ("reaper", reaper.step)):
                began = time.perf_counter()
                await step(cycle)
                took[name] = max(took[name], time.perf_counter() - began)
        nursery.cancel_scope.cancel()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES
    return {**took, "late": late[0], "memory": float(memory)}


async def _watch(late: list[float]) -> None:
    while True:
        due = trio.current_time() + 0.005
        await trio.sleep_until(due)
        late[0] = max(late[0], trio.current_time() - due)


def cycles() -> None:
    """Measure in this process, and print what was found as JSON."""
    with tempfile.TemporaryDirectory(prefix="dispatch-bench-") as folder:
        print(json.dumps(trio.run(_cycles, Path(folder))))  # noqa: T201 - read by `measure`
