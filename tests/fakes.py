"""A fleet in memory: nodes that can be scripted, made to fail, and asked what really happened.

`FakeNode` is the machine and outlives any controller; `FakeTransport` is one controller's way to
it. Time comes from the injected clock and from `trio.sleep`, so a mock clock moves a whole day in
an instant. The conformance suite (tests/fleet/test_conformance.py) keeps the fake honest.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import trio

from dispatch_controller.fleet.transport import NodeUnfit, Reporter, TransportLost
from dispatch_controller.model import (
    Adopted,
    Collection,
    KillOutcome,
    LogChunk,
    Observation,
    Probe,
    Refused,
    RunState,
    Started,
    StartOrder,
    StartOutcome,
    TaskRef,
    Unknown,
    Voided,
    VoidOutcome,
)
from dispatch_controller.runtime.clock import Clock


@dataclass(frozen=True, slots=True)
class Plan:
    """What the agent of one attempt will do."""

    seconds: float = 60.0
    """How long it runs; `math.inf` hangs until it is killed or its time limit ends it."""
    state: RunState = RunState.COMPLETED
    exit_code: int | None = 0
    reason: str | None = None
    error: str | None = None
    files_changed: int = 1
    log: str = "working\n"
    moves: frozenset[str] = frozenset({"cpu", "log", "files"})
    """What of it moves while it lives. The heartbeat always does: the supervisor beats for a
    frozen agent too."""
    lingers: float = 0.0
    """Seconds for which something that it left running holds its lock after its end."""
    vanishes: bool = False
    """At its end the process is gone and left no final status."""
    waiting_input: bool = False
    rate_limited_until: float | None = None
    stubborn: bool = False
    """Does not end when it is told to: only after the grace, by force."""


Script = Callable[[StartOrder], Plan]

FAILS = Plan(state=RunState.FAILED, exit_code=1, reason="exit", error="exit status 1")
HANGS = Plan(seconds=math.inf)
SILENT = Plan(seconds=math.inf, moves=frozenset())
VANISHES = Plan(vanishes=True)


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one call. The fields combine, in the order they are listed."""

    delay: float = 0.0
    """Seconds that pass before the node gets the request."""
    lost_before: bool = False
    """The request never arrives; the caller hears TransportLost (start: Unknown)."""
    in_pipe: float | None = None
    """Only start: the caller hears Unknown at once; the request arrives this much later."""
    refuse: str | None = None
    """Only start: the node refuses with this reason."""
    reply_delay: float = 0.0
    """Seconds between the effect and the answer: a caller's time-out may strike in between."""
    lost_after: bool = False
    """The effect happened; its answer is lost."""


LOST_BEFORE = Fault(lost_before=True)
LOST_AFTER = Fault(lost_after=True)


@dataclass(frozen=True, slots=True)
class Trace:
    """One thing that really happened on a node, for history checkers."""

    at: float
    node: str
    what: str
    """`started`, `ended`, `vanished`, `refused:<reason>`, `voided` or `removed`."""
    project: str
    folder: str
    lease: str
    state: str = ""
    """Of one that ended: its final state, or `killed`."""


@dataclass(slots=True)
class FakeTask:
    """One attempt on a node: the counterpart of a task's folder."""

    order: StartOrder
    plan: Plan
    started_at: float
    ends_at: float
    state: RunState = RunState.RUNNING
    alive: bool = True
    pid: int = 0
    exit_code: int | None = None
    reason: str | None = None
    error: str | None = None
    completed_at: float | None = None
    killed: bool = False
    acked: bool = False


Key = tuple[str, str]


@dataclass(slots=True)
class FakeNode:
    """A machine in memory. Set `up` to False to cut it off; its tasks go on regardless."""

    name: str
    clock: Clock
    script: Script = lambda order: Plan()
    up: bool = True
    mute: bool = False
    """It tells nothing unasked: the channel is gone, and every request opens a new one."""
    distort: Callable[[Sequence[Observation]], Sequence[Observation]] | None = None
    """What it makes of the truth before it tells it."""
    answered_at: float = -math.inf
    """When a controller last heard of it."""
    unfit: str | None = None
    """Text of the NodeUnfit that every call raises."""
    skew: float = 0.0
    wrapper: str | None = "f" * 64
    programs: dict[str, dict[str, str | None]] = field(default_factory=dict)
    disk_total: int = 100_000_000_000
    disk_free: int = 50_000_000_000
    boot_id: str = "boot-1"
    choose_fault: Callable[[str], Fault | None] | None = None
    """Asked at each call with the name of the method; for faults drawn from a seed."""
    tasks: dict[Key, FakeTask] = field(default_factory=dict)
    trace: list[Trace] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    """Names of the methods that were called, in order."""
    _faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    _voids: set[tuple[str, str, str]] = field(default_factory=set)
    _last: dict[Key, tuple[int, int]] = field(default_factory=dict)
    _pipe: list[tuple[float, StartOrder]] = field(default_factory=list)
    _pids: int = 1000
    _listeners: list[Callable[[], None]] = field(default_factory=list)

    # --- what a test does to it

    def fail(self, method: str, *faults: Fault) -> None:
        """The next calls of `method` meet these faults, one each."""
        self._faults[method].extend(faults)

    def reboot(self) -> None:
        """Every process is gone; what was final stays final."""
        self.settle()
        self.boot_id = f"boot-{int(self.boot_id.rpartition('-')[2]) + 1}"
        self._pipe.clear()
        for task in self.tasks.values():
            if task.alive:
                self._vanish(task)
        self.changed()

    def finish(self, project: str, folder: str, plan: Plan | None = None) -> None:
        """The task ends now, as `plan` (else its own plan) says."""
        self.settle()
        task = self.tasks[project, folder]
        if plan is not None:
            task.plan = plan
        task.ends_at = self.clock.wall()
        self.changed()

    def live(self) -> list[FakeTask]:
        self.settle()
        return [task for _, task in sorted(self.tasks.items()) if task.alive]

    # --- what happens on the machine

    def settle(self) -> None:
        """Let everything happen that was due by now, each at its time."""
        now = self.clock.wall()
        while True:
            at, _, event = min(self._due(), key=lambda due: due[:2], default=(math.inf, "", None))
            if at > now:
                return
            if isinstance(event, FakeTask):
                self._end(event)
            elif event is not None:
                self._pipe.remove((at, event))
                self.start(event, at=at)

    def _due(self) -> Iterator[tuple[float, str, FakeTask | StartOrder]]:
        """Yield (when, lease, what) of all that will happen by itself."""
        for task in self.tasks.values():
            if task.alive:
                yield task.ends_at, task.order.lease, task
        for at, order in self._pipe:
            yield at, order.lease, order

    def next_due(self) -> float:
        """When something will happen by itself next; infinity for never."""
        return min((at for at, _, _ in self._due()), default=math.inf)

    def changed(self) -> None:
        for listener in list(self._listeners):
            listener()

    def start(
        self, order: StartOrder, refuse: str | None = None, at: float | None = None
    ) -> StartOutcome:
        """Start one attempt, now or at a time that has passed."""
        now = self.clock.wall() if at is None else at
        key = (order.project, order.folder)
        known = self.tasks.get(key)
        reason = refuse or self._objection(order, known)
        if reason is not None:
            self._note(f"refused:{reason}", order, now)
            seen = self.observe(known) if known is not None else None
            return Refused(reason, f"{order.folder}: {reason}", seen)
        plan = self.script(order)
        self._pids += 1
        length = min(plan.seconds, float(order.timeout))
        task = FakeTask(order, plan, started_at=now, ends_at=now + length, pid=self._pids)
        self.tasks[key] = task
        self._last[key] = (order.sequence, order.attempt)
        self._note("started", order, now)
        self.changed()
        return Started(self.observe(task))

    def send_late(self, order: StartOrder, seconds: float) -> None:
        self._pipe.append((self.clock.wall() + seconds, order))
        self.changed()

    def _objection(self, order: StartOrder, known: FakeTask | None) -> str | None:
        if (order.project, order.folder, order.lease) in self._voids:
            return "void"
        if known is not None and known.alive:
            return "alive"
        last = self._last.get((order.project, order.folder))
        if last is not None and order.sequence <= last[0]:
            return "stale"
        return None

    def void(self, ref: TaskRef) -> VoidOutcome:
        task = self.tasks.get((ref.project, ref.folder))
        if task is not None and task.order.lease == ref.lease:
            return Adopted(self.observe(task))
        self._voids.add((ref.project, ref.folder, ref.lease))
        self.trace.append(
            Trace(self.clock.wall(), self.name, "voided", ref.project, ref.folder, ref.lease)
        )
        return Voided()

    def kill(self, ref: TaskRef, grace: float) -> KillOutcome:
        task = self.tasks.get((ref.project, ref.folder))
        if task is not None and task.order.lease != ref.lease:
            return KillOutcome.OTHER_LEASE
        if task is None or not task.alive:
            return KillOutcome.GONE
        task.killed = True
        patience = grace if task.plan.stubborn else min(grace, 0.1)
        task.ends_at = min(task.ends_at, self.clock.wall() + patience)
        self.changed()
        return KillOutcome.ENDING

    def ack(self, refs: Iterable[TaskRef]) -> None:
        for ref in refs:
            task = self.tasks.get((ref.project, ref.folder))
            if task is not None and task.order.lease == ref.lease and not task.alive:
                task.acked = True

    def cleanup(self, tasks: Iterable[Key]) -> None:
        for key in tasks:
            task = self.tasks.get(key)
            if task is not None and task.acked and not task.alive:
                self._note("removed", task.order, self.clock.wall())
                del self.tasks[key]

    def observations(self) -> Sequence[Observation]:
        """What it tells, whether asked or not."""
        told = [
            self.observe(task)
            for _, task in sorted(self.tasks.items())
            if task.alive or not task.acked
        ]
        return told if self.distort is None else self.distort(told)

    def observe(self, task: FakeTask) -> Observation:
        order, now = task.order, self.clock.wall()
        beat = max(task.started_at, now if task.alive else (task.completed_at or task.ends_at))

        def moved(what: str) -> float:
            return beat if what in task.plan.moves else task.started_at

        final = task.state.final
        left = final and not task.alive and now < beat + task.plan.lingers
        return Observation(
            node=self.name,
            project=order.project,
            folder=order.folder,
            task_id=order.task_id,
            lease=order.lease,
            attempt=order.attempt,
            state=task.state,
            alive=task.alive or left,
            pid=task.pid,
            exit_code=task.exit_code,
            reason=task.reason,
            error=task.error,
            started_at=task.started_at,
            completed_at=task.completed_at,
            heartbeat_at=beat,
            cpu_seconds=(moved("cpu") - task.started_at) / 2,
            log_at=moved("log"),
            log_size=len(task.plan.log) + int(moved("log") - task.started_at),
            files_at=moved("files"),
            waiting_input=task.plan.waiting_input and task.alive,
            log_file=f"{order.project}/tasks/{order.folder}/task.log",
            files_changed=task.plan.files_changed if final else 0,
            gates=dict.fromkeys(order.gates, "passed") if task.state is RunState.COMPLETED else {},
            rate_limited_until=task.plan.rate_limited_until if final else None,
            wrapper=self.wrapper,
        )

    def _end(self, task: FakeTask) -> None:
        if task.plan.vanishes and not task.killed:
            self._vanish(task)
            return
        task.alive = False
        task.completed_at = task.ends_at
        if task.killed:
            task.state, task.exit_code, task.reason = RunState.FAILED, 143, "killed"
            task.error = "ended on request"
        elif task.ends_at >= task.started_at + task.order.timeout:
            task.state, task.exit_code, task.reason = RunState.TIMEOUT, 124, "timeout"
            task.error = f"time limit of {task.order.timeout} s"
        else:
            plan = task.plan
            task.state, task.exit_code = plan.state, plan.exit_code
            task.reason, task.error = plan.reason, plan.error
        self._note("ended", task.order, task.ends_at, "killed" if task.killed else task.state.value)

    def _vanish(self, task: FakeTask) -> None:
        task.alive = False
        task.ends_at = min(task.ends_at, self.clock.wall())
        self._note("vanished", task.order, task.ends_at)

    def _note(self, what: str, order: StartOrder, at: float, state: str = "") -> None:
        self.trace.append(
            Trace(at, self.name, what, order.project, order.folder, order.lease, state)
        )

    def take_fault(self, method: str) -> Fault:
        self.calls.append(method)
        queue = self._faults[method]
        if queue:
            return queue.popleft()
        drawn = self.choose_fault(method) if self.choose_fault is not None else None
        return drawn if drawn is not None else Fault()


class FakeTransport:
    """A controller's way to a `FakeNode`: the Transport protocol, with `run` for reports."""

    def __init__(self, machine: FakeNode, reporter: Reporter, clock: Clock) -> None:
        self.machine = machine
        self.node = machine.name
        self._reporter = reporter
        self._clock = clock

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Report every change unasked, the whole state first, as `serve` does."""
        wake = trio.Event()
        told: dict[Key, tuple[str, RunState, bool, bool]] = {}

        def awaken() -> None:
            wake.set()

        self.machine._listeners.append(awaken)
        try:
            task_status.started()
            was_up = False
            while True:
                self.machine.settle()
                machine = self.machine
                up = machine.up and machine.unfit is None and not machine.mute
                if up:
                    self._report_news(told, whole=not was_up)
                was_up = up
                due = self.machine.next_due() - self._clock.wall()
                wake = trio.Event()
                with trio.move_on_after(max(0.0, due)):
                    await wake.wait()
        finally:
            self.machine._listeners.remove(awaken)

    def _report_news(self, told: dict[Key, tuple[str, RunState, bool, bool]], whole: bool) -> None:
        news = []
        for seen in self.machine.observations():
            key, now = (
                (seen.project, seen.folder),
                (
                    seen.lease or "",
                    seen.state,
                    seen.alive,
                    seen.waiting_input,
                ),
            )
            if told.get(key) != now:
                told[key] = now
                news.append(seen)
        if news or whole:
            self.machine.answered_at = self._clock.wall()
            self._reporter(news)

    async def _arrive(self, method: str, order: StartOrder | None = None) -> Fault:
        """Bring a request to the node, or raise. Always a checkpoint."""
        fault = self.machine.take_fault(method)
        sent = trio.current_time()
        try:
            await trio.sleep(fault.delay)
        except trio.Cancelled:
            if order is not None and fault.delay and not fault.lost_before and self.machine.up:
                left = max(0.0, sent + fault.delay - trio.current_time())
                self.machine.send_late(order, left)
            raise
        if self.machine.unfit is not None:
            raise NodeUnfit(self.node, self.machine.unfit)
        if fault.lost_before or not self.machine.up:
            raise TransportLost(self.node, f"no answer to {method}")
        self.machine.settle()
        return fault

    async def _answer(self, method: str, fault: Fault) -> None:
        if fault.reply_delay:
            await trio.sleep(fault.reply_delay)
        if fault.lost_after or not self.machine.up:
            raise TransportLost(self.node, f"the answer to {method} was lost")
        self.machine.answered_at = self._clock.wall()

    async def start(self, order: StartOrder) -> StartOutcome:
        """As Transport has it. An order that was sent arrives, although its sender is cancelled."""
        try:
            fault = await self._arrive("start", order)
            if fault.in_pipe is not None:
                self.machine.send_late(order, fault.in_pipe)
                return Unknown(f"{self.node}: no answer to start")
            outcome = self.machine.start(order, fault.refuse)
            await self._answer("start", fault)
        except TransportLost as lost:
            return Unknown(str(lost))
        return outcome

    async def void(self, ref: TaskRef) -> VoidOutcome:
        fault = await self._arrive("void")
        outcome = self.machine.void(ref)
        await self._answer("void", fault)
        return outcome

    async def collect(self) -> Collection:
        fault = await self._arrive("collect")
        tasks = self.machine.observations()
        await self._answer("collect", fault)
        return Collection(self.node, self._clock.wall(), tuple(tasks))

    async def kill(self, ref: TaskRef, grace: float) -> KillOutcome:
        fault = await self._arrive("kill")
        outcome = self.machine.kill(ref, grace)
        await self._answer("kill", fault)
        return outcome

    async def probe(self, programs: Sequence[str] = ()) -> Probe:
        fault = await self._arrive("probe")
        machine = self.machine
        await self._answer("probe", fault)
        return Probe(
            node=self.node,
            at=self._clock.wall(),
            round_trip=0.001,
            clock_skew=machine.skew,
            load=(0.1, 0.1, 0.1),
            cpus=8,
            memory_total=16_000_000_000,
            memory_free=8_000_000_000,
            disk_total=machine.disk_total,
            disk_free=machine.disk_free,
            wrapper=machine.wrapper,
            python="3.11.0",
            git="2.40.0",
            boot_id=machine.boot_id,
            agents={name: machine.programs[name] for name in programs if name in machine.programs},
        )

    async def ack(self, refs: Sequence[TaskRef]) -> None:
        fault = await self._arrive("ack")
        self.machine.ack(refs)
        await self._answer("ack", fault)

    async def cleanup(self, tasks: Sequence[tuple[str, str]]) -> None:
        fault = await self._arrive("cleanup")
        self.machine.cleanup(tasks)
        await self._answer("cleanup", fault)

    async def salvage(self, project: str, folder: str) -> str | None:
        fault = await self._arrive("salvage")
        await self._answer("salvage", fault)
        return None

    async def read_log(
        self, project: str, folder: str, offset: int, limit: int, name: str = "task.log"
    ) -> LogChunk:
        fault = await self._arrive("read_log")
        task = self.machine.tasks.get((project, folder))
        text = task.plan.log if task is not None and name == "task.log" else ""
        await self._answer("read_log", fault)
        alive = task is not None and task.alive
        data = text.encode()
        piece = data[offset : offset + limit].decode(errors="replace")
        return LogChunk(offset, len(data), piece, alive)
