"""One suite for every way to a node, so that the fake cannot lie."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from dispatch_controller.fleet.bundle import build
from dispatch_controller.fleet.http import new_client, worker_token
from dispatch_controller.fleet.local import LocalMachine
from dispatch_controller.fleet.polled import PolledTransport
from dispatch_controller.fleet.serve import ServeLimits, ServeTransport
from dispatch_controller.fleet.ssh import SshMachine, SshService, SshSettings
from dispatch_controller.fleet.transport import Machine, Transport
from dispatch_controller.fleet.worker import WorkerTransport
from dispatch_controller.loops.workers import WorkerRegistry
from dispatch_controller.model import (
    Adopted,
    KillOutcome,
    Observation,
    Refused,
    RunState,
    Started,
    StartOrder,
    TaskRef,
    Voided,
)
from dispatch_controller.runtime.clock import SystemClock
from dispatch_controller.runtime.threads import in_thread
from dispatch_controller.worker.app import build_parts, listen
from dispatch_controller.worker.options import Options
from tests.fakes import HANGS, FakeNode, FakeTransport, Plan
from tests.fleet.orders import an_order, ref_of
from tests.sshd import SshFleet

OWNER = "0123456789abcdef"


def block(script: str) -> str:
    """A spec for the shell executor."""
    return f"# task\n\n```sh\n{script}\n```\n"


QUICK = block("echo done > out.txt; echo working")
FAILING = block("echo oops; exit 3")
HANGING = block("echo waiting; exec sleep 300")


@dataclass
class Way:
    """A way to one node, and what it reports."""

    transport: Transport
    reports: bool
    """Whether ends are told unasked."""
    seen: list[Observation] = field(default_factory=list)

    async def until(self, order: StartOrder, done: Callable[[Observation], bool]) -> Observation:
        """Collect until the task of `order` is as wanted."""
        with trio.fail_after(30):
            while True:
                for task in (await self.transport.collect()).tasks:
                    if (task.folder, task.lease) == (order.folder, order.lease) and done(task):
                        return task
                await trio.sleep(0.05)

    async def ended(self, order: StartOrder) -> Observation:
        return await self.until(order, lambda task: task.state.final and not task.alive)


def a_plan(order: StartOrder) -> Plan:
    """What the real executor would do with these specs."""
    if order.spec == HANGING:
        return HANGS
    if order.spec == FAILING:
        return Plan(seconds=0.1, state=RunState.FAILED, exit_code=3, reason="exit", log="oops\n")
    return Plan(seconds=0.1)


@pytest.fixture(params=["fake", "local", "ssh", "polled", "worker"])
async def way(
    request: pytest.FixtureRequest, tmp_path: Path, nursery: trio.Nursery
) -> AsyncIterator[Way]:
    clock = SystemClock()
    told: list[Observation] = []

    def report(news: Sequence[Observation]) -> None:
        told.extend(news)

    def serve(machine: Machine, root: str) -> ServeTransport:
        return ServeTransport(machine, root, OWNER, build(), report, clock, ServeLimits())

    transport: FakeTransport | ServeTransport | PolledTransport | WorkerTransport
    if request.param == "fake":
        transport = FakeTransport(FakeNode("n", clock, a_plan), report, clock)
    elif request.param == "polled":
        wrapper = tmp_path / "task-wrapper.sh"
        wrapper.write_bytes(build().content)  # called the older way it is one of them
        wrapper.chmod(0o755)
        root = tmp_path / "a root"
        root.mkdir()
        transport = PolledTransport(LocalMachine("n"), str(root), OWNER, str(wrapper), clock)
    elif request.param == "worker":
        transport = await nursery.start(a_worker, tmp_path / "root")
    elif request.param == "local":
        transport = serve(LocalMachine("n"), str(tmp_path / "root"))
    else:
        fleet: SshFleet = request.getfixturevalue("ssh_fleet")
        await in_thread(fleet.add, "alpha")
        service = SshService(fleet.settings, in_thread)
        await nursery.start(service.run)
        transport = serve(SshMachine(service, "n", "alpha"), "~/dispatch")
    await nursery.start(transport.run)
    yield Way(transport, request.param not in ("polled", "worker"), told)
    for task in (await transport.collect()).tasks:
        if task.alive and task.lease is not None:
            await transport.kill(TaskRef(task.project, task.folder, task.lease), 0.0)


async def a_worker(root: Path, *, task_status: trio.TaskStatus[WorkerTransport]) -> None:
    """Our own worker, listening, whose controller does not answer; until cancelled."""
    token, clock = "a token", SystemClock()
    options = Options("http://127.0.0.1:9", "n", 200, root, token, ("127.0.0.1", 0))
    async with new_client() as client, trio.open_nursery() as nursery:
        parts = build_parts(options, OWNER, client)
        await nursery.start(parts.transport.run)
        await parts.service.collect(1)
        url = await nursery.start(listen, parts, ("127.0.0.1", 0))
        directory = WorkerRegistry({"n": url})
        transport = WorkerTransport(
            "n", "~/dispatch", directory, client, clock, worker_token(token, "n")
        )
        try:
            task_status.started(transport)
            await trio.sleep_forever()
        finally:
            parts.stop.set()


async def test_task_runs_to_its_end_and_is_told_unasked(way: Way) -> None:
    order = an_order(spec=QUICK)
    outcome = await way.transport.start(order)
    assert isinstance(outcome, Started), outcome
    seen = outcome.observation
    assert (seen.node, seen.project, seen.folder, seen.lease) == ("n", "p", "T1", order.lease)
    assert seen.task_id == "T1"
    assert seen.pid is not None
    end = await way.ended(order)
    assert (end.state, end.exit_code, end.attempt) == (RunState.COMPLETED, 0, 1)
    assert end.started_at is not None
    assert end.completed_at is not None
    assert abs(SystemClock().wall() - end.completed_at) < 30
    if way.reports:
        with trio.fail_after(10):
            while not any(task.state is RunState.COMPLETED for task in way.seen):
                await way.transport.collect()


async def test_failing_task_says_how(way: Way) -> None:
    order = an_order(spec=FAILING)
    await way.transport.start(order)
    end = await way.ended(order)
    assert (end.state, end.exit_code, end.reason) == (RunState.FAILED, 3, "exit")


async def test_second_start_while_one_lives_is_refused_and_names_the_living(way: Way) -> None:
    order = an_order(spec=HANGING)
    assert isinstance(await way.transport.start(order), Started)
    again = await way.transport.start(an_order(spec=HANGING, sequence=2))
    assert isinstance(again, Refused)
    assert again.reason == "alive"
    assert again.observation is not None
    assert again.observation.lease == order.lease


async def test_order_that_is_not_newer_is_refused(way: Way) -> None:
    first = an_order(spec=QUICK, sequence=5, attempt=1)
    assert isinstance(await way.transport.start(first), Started)
    await way.ended(first)
    stale = await way.transport.start(an_order(spec=QUICK, sequence=4, attempt=2))
    assert isinstance(stale, Refused)
    assert stale.reason == "stale"
    newer = an_order(spec=QUICK, sequence=6, attempt=1)  # the operator's retry starts at 1
    assert isinstance(await way.transport.start(newer), Started)
    assert (await way.ended(newer)).attempt == 1


async def test_voided_lease_never_starts(way: Way) -> None:
    order = an_order(spec=QUICK)
    assert isinstance(await way.transport.void(ref_of(order)), Voided)
    assert isinstance(await way.transport.void(ref_of(order)), Voided)
    refused = await way.transport.start(order)
    assert isinstance(refused, Refused)
    assert refused.reason == "void"
    assert isinstance(await way.transport.start(an_order(spec=QUICK, sequence=2)), Started)


async def test_started_lease_is_adopted_by_void(way: Way) -> None:
    order = an_order(spec=HANGING)
    await way.transport.start(order)
    outcome = await way.transport.void(ref_of(order))
    assert isinstance(outcome, Adopted)
    assert outcome.observation.lease == order.lease
    assert outcome.observation.alive


async def test_ended_lease_is_adopted_by_void(way: Way) -> None:
    order = an_order(spec=QUICK)
    await way.transport.start(order)
    await way.ended(order)
    outcome = await way.transport.void(ref_of(order))
    assert isinstance(outcome, Adopted)
    assert outcome.observation.state is RunState.COMPLETED


async def test_start_and_void_at_once_never_both_win(way: Way) -> None:
    for number in range(1, 11):
        order = an_order(f"R{number}", spec=HANGING, sequence=number)
        results: dict[str, object] = {}

        async def keep(name: str, call: Awaitable[object], into: dict[str, object]) -> None:
            into[name] = await call

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, "start", way.transport.start(order), results)
            nursery.start_soon(keep, "void", way.transport.void(ref_of(order)), results)
        started = isinstance(results["start"], Started)
        voided = isinstance(results["void"], Voided)
        assert started != voided, results
        alive = [task for task in (await way.transport.collect()).tasks if task.alive]
        assert (order.folder in [task.folder for task in alive]) is started


async def test_kill_ends_the_process_and_says_so(way: Way) -> None:
    order = an_order(spec=HANGING)
    await way.transport.start(order)
    await way.until(order, lambda task: task.state is RunState.RUNNING)
    assert await way.transport.kill(ref_of(order), 5.0) is KillOutcome.ENDING
    end = await way.ended(order)
    assert (end.state, end.reason) == (RunState.FAILED, "killed")
    assert await way.transport.kill(ref_of(order), 0.2) is KillOutcome.GONE


async def test_kill_of_what_never_was_is_gone(way: Way) -> None:
    assert await way.transport.kill(TaskRef("p", "no", "n:1"), 0.2) is KillOutcome.GONE


async def test_kill_of_another_lease_touches_nothing(way: Way) -> None:
    order = an_order(spec=HANGING)
    await way.transport.start(order)
    other = TaskRef("p", "T1", "n:ffffffff")
    assert await way.transport.kill(other, 0.2) is KillOutcome.OTHER_LEASE
    assert (await way.until(order, lambda task: True)).alive


async def test_time_limit_ends_a_task(way: Way) -> None:
    order = an_order(spec=HANGING, timeout=1)
    await way.transport.start(order)
    end = await way.ended(order)
    assert (end.state, end.exit_code) == (RunState.TIMEOUT, 124)


async def test_acknowledged_end_is_told_no_more(way: Way) -> None:
    if isinstance(way.transport, WorkerTransport):
        pytest.skip("a worker's ends are acknowledged by the answers to its reports")
    order = an_order(spec=QUICK)
    await way.transport.start(order)
    await way.ended(order)
    await way.transport.ack([ref_of(order)])
    assert (await way.transport.collect()).tasks == ()


async def test_log_is_read_in_pieces(way: Way) -> None:
    order = an_order(spec=QUICK)
    await way.transport.start(order)
    await way.ended(order)
    whole = await way.transport.read_log("p", "T1", 0, 10_000)
    assert "working" in whole.text
    assert whole.size == len(whole.text.encode())
    assert not whole.alive
    piece = await way.transport.read_log("p", "T1", 2, 5)
    assert (piece.offset, piece.text) == (2, whole.text[2:7])


async def test_probe_tells_how_the_node_is(way: Way) -> None:
    probe = await way.transport.probe(["sh-is-no-agent-anywhere"])
    assert probe.node == "n"
    assert abs(probe.clock_skew) < 5
    assert probe.disk_total is not None
    assert probe.disk_free is not None
    assert 0 < probe.disk_free <= probe.disk_total
    assert probe.wrapper is not None


async def test_many_starts_at_once(way: Way) -> None:
    count = 140 if way.reports else 20  # an interpreter for each costs its time
    orders = [an_order(f"M{n}", spec=QUICK, sequence=n) for n in range(1, count + 1)]
    outcomes: list[object] = []

    async def start(order: StartOrder) -> None:
        outcomes.append(await way.transport.start(order))

    async with trio.open_nursery() as nursery:
        for order in orders:
            nursery.start_soon(start, order)
    assert [type(outcome) for outcome in outcomes] == [Started] * count
    with trio.fail_after(60):
        while True:
            tasks = (await way.transport.collect()).tasks
            if sum(task.state is RunState.COMPLETED for task in tasks) == count:
                break
            await trio.sleep(0.1)


@pytest.mark.parametrize("way_name", ["local", "ssh"])
async def test_tasks_outlive_the_controller_and_are_found_again(
    way_name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    order = an_order(spec=HANGING)
    told: list[Observation] = []
    settings = SshSettings()
    if way_name == "ssh":
        fleet: SshFleet = request.getfixturevalue("ssh_fleet")
        await in_thread(fleet.add, "alpha")
        settings = fleet.settings

    async def life(work: Callable[[ServeTransport], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            service = SshService(settings, in_thread)
            await nursery.start(service.run)
            machine: Machine = LocalMachine("n")
            root = str(tmp_path / "root")
            if way_name == "ssh":
                machine, root = SshMachine(service, "n", "alpha"), "~/dispatch"
            transport = ServeTransport(machine, root, OWNER, build(), told.extend, SystemClock())
            await nursery.start(transport.run)
            await work(transport)
            nursery.cancel_scope.cancel()

    async def first(transport: ServeTransport) -> None:
        outcome = await transport.start(order)
        assert isinstance(outcome, Started)
        told.clear()

    async def second(transport: ServeTransport) -> None:
        (seen,) = (await transport.collect()).tasks
        assert (seen.lease, seen.alive) == (order.lease, True)
        assert seen.pid is not None
        os.kill(seen.pid, 0)
        assert [task.lease for task in told] == [order.lease]  # the state, told unasked
        assert await transport.kill(ref_of(order), 0.0) is KillOutcome.ENDING
        await Way(transport, True).ended(order)

    await life(first)
    await life(second)
