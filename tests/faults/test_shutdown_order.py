"""The order of a stop, on the mock clock, with the signal at every kind of moment there is.

The real root, loops, store and signals; machines and HTTP are stand-ins. A moment is a step of
Trio's scheduler: the signal is raised in it, so the same moment comes again in every run.
"""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from dispatch_controller.app import Parts, live
from dispatch_controller.fleet.bundle import build
from dispatch_controller.home import Home
from dispatch_controller.loops.alerts import Alerts
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.rollout import Releases
from dispatch_controller.runtime.lag import Lag
from dispatch_controller.store.connection import get_db
from dispatch_controller.store.schema import prepare
from dispatch_controller.store.writer import StoreClosed
from tests.fakes import FakeNode, Fault, Plan
from tests.loops.world import World
from tests.make import insert_task

GRACE = 10.0
TASKS = tuple(f"T{number}" for number in range(6))
EXPLAINED = {"pending", "claimed", "running", "completed"}
BUNDLE = build()


class Signals(trio.abc.Instrument):
    """Raises SIGTERM in one step, counted from when somebody listens; and once more if asked.

    The second one comes so many steps after the first was taken: until then they would be one.
    """

    def __init__(
        self, stop: trio.Event, moment: int | None = None, again: int | None = None
    ) -> None:
        self._stop = stop
        self._moment = moment
        self._again = again
        self.steps = 0
        self.raised: list[float] = []

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            return
        self.steps += 1
        if self.steps == self._moment:
            self._raise()
        elif self._stop.is_set() and self._again is not None:
            self._again -= 1
            if not self._again:
                self._raise()

    def _raise(self) -> None:
        self.raised.append(trio.current_time())
        signal.raise_signal(signal.SIGTERM)


@dataclass
class Run:
    """One life of a controller, and the order in which its parts ended."""

    world: World
    begun: set[str] = field(default_factory=set)
    ended: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def parts(self) -> Parts:
        context = self.world.build()
        loops = {name: self._noted(name, loop) for name, loop in self.world.loops.items()}
        releases = Releases.load(
            self.world.home / "wrapper", BUNDLE, lambda *_: None, context.run_sync
        )
        return Parts(
            context=context,
            ssh=_Until(self, "ssh", context),
            fleet=_Until(self, "fleet", context),
            web=_Web(self, context),
            lag=Lag(),
            alerts=Alerts(context),
            releases=releases,
            findings=self.world.findings,
            loops=loops,
        )

    def _noted(
        self, name: str, loop: Callable[[], Awaitable[None]]
    ) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            self.begun.add(name)
            try:
                await loop()
            finally:
                self.ended.append(name)

        return run


@dataclass
class _Until:
    """Infrastructure that machines are reached by; its nursery is the world's."""

    run_of: Run
    name: str
    context: Context

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        world = self.run_of.world
        try:
            async with trio.open_nursery() as nursery:
                if self.name == "fleet":
                    world.nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            world.nursery = None
            written = "written" if self.context.store.depth == 0 else "unwritten"
            self.run_of.ended.append(f"{self.name}, all {written}")


@dataclass
class _Web:
    """HTTP as the root sees it: clients write twice a second; those in flight end at the stop."""

    run_of: Run
    context: Context

    async def __call__(self, *, task_status: trio.TaskStatus[str]) -> None:
        run = self.run_of
        try:
            async with trio.open_nursery() as requests:
                task_status.started("http://stand-in")
                while not self.context.stop.is_set():
                    name = f"W{len(run.asked)}"
                    run.asked.append(name)
                    requests.start_soon(self._request, name)
                    with trio.move_on_after(0.5):
                        await self.context.stop.wait()
        finally:
            run.ended.append("web")

    async def _request(self, name: str) -> None:
        try:
            await self.context.store.write(insert_task, name, status="completed")
        except StoreClosed:
            return  # a 503
        self.run_of.acknowledged.append(name)


@contextmanager
def without_fsync(path: Path) -> Iterator[sqlite3.Connection]:
    """No power is cut here, and there are hundreds of starts."""
    with get_db(path) as conn:
        conn.execute("PRAGMA synchronous=OFF")
        yield conn


def new_world(folder: Path, answers_after: float) -> World:
    folder.mkdir()
    prepare(folder / "dispatch.db")
    world = World(folder, grace=GRACE, retry={"base": 1, "limit": 2})
    world.connect = without_fsync
    for name in ("n1", "n2"):
        node = world.node(name, slots=2, script=lambda order: Plan(seconds=20))
        node.fail("start", *(Fault(reply_delay=answers_after) for _ in range(2)))
    for number, task in enumerate(TASKS):
        world.spec(task, depends_on=TASKS[number - 4 : number - 3] if number >= 4 else ())
    return world


async def one_life(world: World, moment: int, again: int | None = None) -> tuple[Run, Signals]:
    """Run a controller until the signals end it."""
    run = Run(world)
    parts = run.parts()
    signals = Signals(parts.context.stop, moment, again)
    trio.lowlevel.add_instrument(signals)
    try:
        with trio.fail_after(600):
            await live(parts, Home(world.home))
    finally:
        trio.lowlevel.remove_instrument(signals)
    return run, signals


def check_order(run: Run) -> None:
    assert set(run.ended[-2:]) == {"ssh, all written", "fleet, all written"}, run.ended
    assert sorted(run.ended[:-2]) == sorted({*run.begun, "web"}), run.ended


def check_rows(run: Run) -> None:
    """What was acknowledged is there, what was not may be; every row is of a known kind."""
    with get_db(run.world.db) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    statuses = run.world.status()
    assert set(run.acknowledged) <= statuses.keys()
    assert set(statuses) <= {*run.asked, *TASKS}
    assert {statuses[task] for task in TASKS if task in statuses} <= EXPLAINED
    leases = {trace.lease for machine in run.world.machines.values() for trace in machine.trace}
    for task in TASKS:
        if statuses.get(task) in ("running", "completed"):
            assert run.world.row(task)["lease_owner"] in leases | {None}, run.world.row(task)


async def check_next_start(world: World) -> None:
    """Everything is done by the next controller, and each task was started once."""
    async with world.controller():
        await world.until(600, **dict.fromkeys(TASKS, "completed"))
    assert starts(world.machines.values()) == sorted(TASKS)


def starts(machines: object) -> list[str]:
    found: list[FakeNode] = list(machines)  # type: ignore[call-overload]
    return sorted(t.folder for m in found for t in m.trace if t.what == "started")


async def count_steps(folder: Path, answers_after: float, seconds: float) -> int:
    """Return how many steps a controller takes in so many seconds."""
    run = Run(new_world(folder, answers_after))
    parts = run.parts()
    signals = Signals(parts.context.stop)
    trio.lowlevel.add_instrument(signals)
    with trio.move_on_after(seconds):
        await live(parts, Home(run.world.home))
    trio.lowlevel.remove_instrument(signals)
    return signals.steps


@pytest.mark.parametrize(
    "points",
    [pytest.param(10, marks=pytest.mark.slow), pytest.param(400, marks=pytest.mark.soak)],
)
async def test_a_signal_at_any_moment_ends_all_in_order_within_the_grace(
    tmp_path: Path, points: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Moments spread over all steps of a start, the first claims and their starts."""
    steps = await count_steps(tmp_path / "counted", 4.0, 15.0)
    for moment in range(1, steps, max(1, steps // points)):
        world = new_world(tmp_path / f"at-{moment}", 4.0)
        run, signals = await one_life(world, moment)
        assert trio.current_time() - signals.raised[0] <= 4.0 + 0.5, moment
        check_order(run)
        check_rows(run)
        assert run.acknowledged == run.asked  # nothing that was taken was refused
        await check_next_start(world)


@pytest.mark.slow
async def test_what_does_not_end_within_the_grace_is_cut_off_there(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    steps = await count_steps(tmp_path / "counted", 300.0, 15.0)
    for moment in range(steps // 2, steps, max(1, steps // 8)):
        world = new_world(tmp_path / f"at-{moment}", 300.0)
        run, signals = await one_life(world, moment)
        assert GRACE <= trio.current_time() - signals.raised[0] <= GRACE + 0.5, moment
        check_order(run)
        check_rows(run)
        await check_next_start(world)


@pytest.mark.slow
async def test_a_second_signal_ends_at_once_whenever_it_comes(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    steps = await count_steps(tmp_path / "counted", 300.0, 15.0)
    for moment in range(steps // 4, steps, max(1, steps // 4)):
        for later in (1, 5, 40):
            world = new_world(tmp_path / f"at-{moment}-{later}", 300.0)
            run, signals = await one_life(world, moment, later)
            assert trio.current_time() - signals.raised[-1] <= 0.01, (moment, later)
            check_rows(run)
            await check_next_start(world)


async def test_a_stop_in_idleness_takes_no_time_at_all(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    (tmp_path / "idle").mkdir()
    prepare(tmp_path / "idle" / "dispatch.db")
    world = World(tmp_path / "idle", grace=GRACE)
    world.connect = without_fsync
    world.node("n1")
    run = Run(world)
    parts = run.parts()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(live, parts, Home(world.home))
        await trio.sleep(60)
        signal.raise_signal(signal.SIGTERM)
        began = trio.current_time()
    assert trio.current_time() - began <= 0.01
    check_order(run)
