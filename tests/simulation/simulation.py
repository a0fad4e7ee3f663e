"""A simulated fleet on the mock clock: everything of it follows from a seed.

What that takes: Trio's scheduling seeded and deterministic, every random number from a generator
of the seed, lists in order wherever something is chosen from them, and no clock but the mock one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio
import trio._core._run
from trio.testing import MockClock

from dispatch_controller.loops.operator import NotFound, NotPossible
from dispatch_controller.settings_sections import LOOP_INTERVALS
from dispatch_controller.store.connection import Connect, get_db
from dispatch_controller.store.schema import prepare
from tests.fakes import FakeNode
from tests.loops.world import World
from tests.simulation.agents import HOPELESS, Agents
from tests.simulation.faults import Machine
from tests.simulation.history import Violation
from tests.simulation.invariants import Invariants

EXECUTORS = ("shell", "shell", "opencode")


@dataclass(frozen=True, slots=True)
class Scale:
    """How large, and how long."""

    nodes: int
    tasks: int
    seconds: float
    factor: float = 1.0
    """What the contract's intervals are multiplied with."""
    faulty: float = 0.12
    minutes: float = 12.0
    gap: float = 7200.0
    """Seconds between two episodes of a node, and between two ends of the controller."""
    operator: float = 1200.0
    """Seconds between two deeds of the operator."""
    busy: float = 0.7
    """Share of the time after which nothing goes wrong any more, so that all can be done."""
    patience: float = 6 * 3600.0
    """Seconds after its time in which all must be done that can be."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it."""

    seed: int
    digest: str
    """Of every event and every trace."""
    statuses: Counter[str]
    events: Counter[str]
    traces: Counter[str]
    controllers: int
    looks: int


class Simulation:
    """One run. `run` raises Violation at the first invariant that does not hold."""

    def __init__(
        self,
        home: Path,
        seed: int,
        scale: Scale,
        prepare_node: Callable[[FakeNode], None] = lambda _: None,
    ) -> None:
        self.seed = seed
        self.scale = scale
        self.home = home
        self._prepare_node = prepare_node
        self._rng = random.Random(f"simulation {seed}")
        self._violation: Violation | None = None
        self._errors: list[str] = []
        self._controllers = 0
        self._kept = ExitStack()
        self._kill_at: int | None = None
        """How many commits that change a status the controller has left to live, if it is that."""
        self._world: World
        self._invariants: Invariants
        self._scope: trio.CancelScope

    def run(self) -> Outcome:
        with _deterministic(self.seed), _quiet():
            trio.run(self._main, clock=MockClock(autojump_threshold=0))
        if self._violation is not None:
            raise self._violation
        return self._outcome()

    @property
    def _calm_at(self) -> float:
        return self.scale.seconds * self.scale.busy

    async def _main(self) -> None:
        self._build()
        try:
            with trio.CancelScope() as self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._run_controllers, name="controllers")
                    nursery.start_soon(self._write_specs, name="specs")
                    nursery.start_soon(self._run_machines, name="machines")
                    await trio.sleep_until(self.scale.seconds)
                    await self._settle()
                    nursery.cancel_scope.cancel()
        except Violation as violation:
            self._violation = self._told(violation)
        finally:
            self._invariants.close()
            self._kept.close()

    def _build(self) -> None:
        scale, rng = self.scale, self._rng
        prepare(self.home / "dispatch.db")
        intervals = {
            name: {"interval": seconds * scale.factor} for name, seconds in LOOP_INTERVALS.items()
        }
        world = self._world = World(self.home, seed=self.seed, loops=intervals)
        agents = Agents(self.seed, scale.faulty, scale.minutes)
        for n in range(scale.nodes):
            world.node(
                f"n{n:02}", slots=rng.choice([2, 3, 4]), executor=EXECUTORS[n % len(EXECUTORS)],
                priority=rng.choice([1, 2]), script=agents.plan,
            )  # fmt: skip
        for node in world.machines.values():
            self._prepare_node(node)
        world.write_nodes()
        self._machines = [
            Machine(world, node, random.Random(f"{self.seed} {name}"))
            for name, node in world.machines.items()
        ]
        self._invariants = Invariants(world)
        world.after_call = self._look
        world.connect = self._kept.enter_context(_keeping(world.db))

    # --- what is checked, and when

    def _look(self) -> None:
        """After every commit. A violation ends the run: the product must not swallow it."""
        try:
            changes = self._invariants.look()
        except Violation as violation:
            self._violation = self._violation or self._told(violation)
            self._scope.cancel()
            return
        if changes and self._kill_at is not None:
            self._kill_at -= 1
            if self._kill_at <= 0:
                self._kill_at = None
                self._world.kill()

    def _told(self, violation: Violation) -> Violation:
        at = trio.current_time()
        return Violation(f"seed {self.seed}, {self.scale}, at {at:.3f} s: {violation}")

    async def _settle(self) -> None:
        """Wait until all is done that can be; raise what is not, when patience is at its end."""
        deadline = self.scale.seconds + self.scale.patience
        while True:
            try:
                self._invariants.look()
                self._invariants.check_end()
            except Violation as violation:
                if trio.current_time() >= deadline:
                    self._violation = self._violation or self._told(violation)
                    return
            else:
                break
            await trio.sleep(60.0)
        self._note_errors()
        if self._errors:
            self._violation = self._told(Violation(f"loops failed: {self._errors}"))

    # --- what happens

    async def _run_controllers(self) -> None:
        """Start a controller, let it live for a while, kill it, start the next."""
        while True:
            self._controllers += 1
            life = self._rng.expovariate(1 / self.scale.gap)
            if self._rng.random() < 0.5:
                self._kill_at = self._rng.randrange(1, 60)
            async with self._world.controller():
                nursery = self._world.nursery
                assert nursery is not None
                nursery.start_soon(self._operate, name="operator")
                if trio.current_time() + life < self._calm_at:
                    await trio.sleep(life)
                else:
                    await trio.sleep_until(self._calm_at)
                    self._kill_at = None
                    await trio.sleep_forever()
            self._note_errors()
            await trio.sleep(self._rng.choice([0.0, 5.0, 60.0, 1200.0]))

    def _note_errors(self) -> None:
        self._errors += [
            f"{name}: {stats.last_error}"
            for name, stats in self._world.context.stats.items()
            if stats.last_error is not None
        ]

    async def _run_machines(self) -> None:
        with trio.move_on_at(self._calm_at):
            async with trio.open_nursery() as nursery:
                for machine in self._machines:
                    nursery.start_soon(machine.live, self.scale.gap, name=machine.node.name)
        for machine in self._machines:
            machine.mend()

    async def _write_specs(self) -> None:
        """Six tenths at once, the rest bit by bit."""
        scale, rng = self.scale, self._rng
        times = sorted(
            0.0 if rng.random() < 0.6 else rng.uniform(0.0, self._calm_at * 0.8)
            for _ in range(scale.tasks)
        )
        written: dict[str, list[str]] = {}
        for n, at in enumerate(times):
            await trio.sleep_until(at)
            project = rng.choice(["api", "site", "tool"])
            hopeless = rng.random() < 0.02
            task_id = f"T{n:03}-{HOPELESS}" if hopeless else f"T{n:03}"
            others = written.setdefault(project, [])
            parents = rng.sample(others[-12:], min(len(others), rng.choice([0, 0, 1, 1, 2])))
            self._world.spec(
                task_id, project=project, executor=rng.choice(["shell", "shell", "opencode"]),
                depends_on=sorted(parents), modifies=self._files(task_id),
                exclusive=rng.random() < 0.05, priority=rng.choice([1, 2, 3]),
                timeout_minutes=rng.choice([30, 60, 120]),
            )  # fmt: skip
            if not hopeless:
                others.append(task_id)

    def _files(self, task_id: str) -> list[str]:
        shared = self._rng.choice(["src/Core", "src/core/a.py", "src/b.py", "docs/"])
        return [f"{task_id}.txt", shared] if self._rng.random() < 0.15 else [f"{task_id}.txt"]

    async def _operate(self) -> None:
        """The operator's commands; they end with the controller that they were given to."""
        world, rng, cancelled = self._world, self._rng, self._invariants.cancelled
        while trio.current_time() < self._calm_at:
            await trio.sleep(rng.expovariate(1 / self.scale.operator))
            task_id = rng.choice(sorted(world.status()) or ["T000"])
            node = rng.choice(sorted(world.machines))
            try:
                match rng.choice(["cancel", "retry", "retry", "switch"]):
                    case "cancel":
                        cancelled.add(task_id)
                        await world.operator.cancel(task_id)
                    case "retry":
                        await world.operator.retry(task_id)
                        cancelled.discard(task_id)
                    case "switch":
                        await world.operator.set_enabled(node, False)
                        await trio.sleep(600)
                        await world.operator.set_enabled(node, True)
            except (NotFound, NotPossible):
                pass
        await trio.sleep(2 * world.settings.loops.db_sync.interval)  # all are listed again
        for name in sorted(world.machines):
            await world.operator.set_enabled(name, True)

    # --- what it was

    def _outcome(self) -> Outcome:
        with sqlite3.connect(self._world.db) as conn:
            events = conn.execute("SELECT * FROM events ORDER BY id").fetchall()
            statuses = dict(conn.execute("SELECT status, count(*) FROM tasks GROUP BY status"))
        conn.close()
        traces = [
            [trace.at, trace.node, trace.what, trace.folder, trace.lease, trace.state]
            for machine in self._machines
            for trace in machine.node.trace
        ]
        text = json.dumps([events, traces]).replace(str(self.home), "HOME")
        return Outcome(
            seed=self.seed,
            digest=hashlib.sha256(text.encode()).hexdigest(),
            statuses=Counter(statuses),
            events=Counter(str(event[3]) for event in events),
            traces=Counter(str(trace[2]) for trace in traces),
            controllers=self._controllers,
            looks=self._invariants.looks,
        )


@contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    """Have Trio run its tasks in an order that follows from the seed."""
    inside = trio._core._run
    before = inside._ALLOW_DETERMINISTIC_SCHEDULING
    state = inside._r.getstate()
    inside._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    inside._r.seed(seed)
    try:
        yield
    finally:
        inside._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        inside._r.setstate(state)


@contextmanager
def _keeping(path: Path) -> Iterator[Connect]:
    """Yield a way to one connection that is kept: opening a hundred thousand takes a minute."""
    with get_db(path) as conn:

        @contextmanager
        def connect(_: Path) -> Iterator[sqlite3.Connection]:
            try:
                yield conn
            finally:
                if conn.in_transaction:
                    conn.execute("ROLLBACK")

        yield connect


@contextmanager
def _quiet() -> Iterator[None]:
    """Thousands of warnings are what a simulation is about."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.reset_defaults()
