"""What really ran on the machines, held against what the database says of it.

The facts are the machines' traces: no lie, lost answer or skewed clock is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tests.fakes import FakeNode, Plan, Trace
from tests.simulation.history import HELD, Change, Life, Violation


@dataclass(frozen=True, slots=True)
class Process:
    """A process that lives."""

    task_id: str
    project: str
    node: str
    lease: str
    plan: Plan


@dataclass(frozen=True, slots=True)
class Facts:
    """What a check asks of the rest of the simulation."""

    silent: Callable[[str], bool]
    """Whether a running controller has not heard of the node for the visibility time-out."""
    slots: Callable[[str], int]
    overlap: Callable[[str, str], bool]
    """Whether two tasks modify one file."""
    cancelled: Callable[[str], bool]
    """Whether the operator asked for this task's end."""


class Processes:
    """Follows every attempt on every machine."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._taken: dict[str, int] = {}
        self.live: dict[str, Process] = {}
        self.ended: dict[str, str] = {}
        """Lease → its final state, `killed` or `vanished`."""
        self._started: set[str] = set()
        self._settled: set[str] = set()
        """Leases that were voided or refused: they will never start."""
        self.cut_off: set[str] = set()
        """Leases given up while their node was silent: the only ones that may outlive that."""

    def take(self, machines: Mapping[str, FakeNode], lives: Mapping[str, Life]) -> None:
        """Take in what has happened since the last time."""
        news: list[tuple[float, int, FakeNode, Trace]] = []
        for name, machine in machines.items():
            machine.settle()
            fresh = machine.trace[self._taken.get(name, 0) :]
            self._taken[name] = len(machine.trace)
            news += [(trace.at, n, machine, trace) for n, trace in enumerate(fresh)]
        for _, _, machine, trace in sorted(news, key=lambda item: (item[0], item[3].node, item[1])):
            self._one(machine, trace, lives[trace.folder])

    def _one(self, machine: FakeNode, trace: Trace, life: Life) -> None:
        lease = trace.lease
        if trace.what == "started":
            self._start(machine, trace, life)
        elif trace.what in ("ended", "vanished"):
            process = self.live.pop(lease)
            self.ended[lease] = trace.state or "vanished"
            if trace.state == "killed":
                self._killed(process, life)
        elif trace.what == "voided" or trace.what.startswith("refused:"):
            if lease in self.live and trace.what == "voided":
                raise Violation(f"{trace.folder}: {lease} is voided while it runs")
            self._settled.add(lease)

    def _start(self, machine: FakeNode, trace: Trace, life: Life) -> None:
        task_id, lease = trace.folder, trace.lease
        if lease in self._started:
            raise Violation(f"{task_id}: {lease} was started twice")
        self._started.add(lease)
        known = machine.tasks.get((trace.project, task_id))
        plan = known.plan if known is not None and known.order.lease == lease else Plan()
        if (life.lease != lease or life.status not in HELD) and lease not in self.cut_off:
            raise Violation(f"{task_id}: {lease} starts, but {life.lease} ({life.status}) is it")
        if lease not in self.cut_off:
            for other in self.live.values():
                self._beside(other, trace)
        self.live[lease] = Process(task_id, trace.project, trace.node, lease, plan)
        here = [p for p in self.live.values() if p.node == trace.node]
        if len([p for p in here if p.lease not in self.cut_off]) > self._facts.slots(trace.node):
            raise Violation(f"{trace.node}: {len(here)} processes, more than it has slots")

    def _beside(self, other: Process, trace: Trace) -> None:
        if other.lease in self.cut_off or other.project != trace.project:
            return
        if other.task_id == trace.folder:
            raise Violation(f"{trace.folder}: runs as {other.lease} and as {trace.lease}")
        if self._facts.overlap(other.task_id, trace.folder):
            raise Violation(f"{trace.folder} and {other.task_id} run and modify one file")

    def _killed(self, process: Process, life: Life) -> None:
        """Only what is frozen, was cancelled, or belongs to no row any more, is ever ended."""
        owned = life.lease == process.lease and life.status in HELD
        if owned and process.plan.moves and not self._facts.cancelled(process.task_id):
            raise Violation(f"{process.task_id}: {process.lease} was healthy and was killed")

    def freed(self, change: Change) -> None:
        """Check that an attempt which the database has ended has really ended."""
        lease = change.lease or ""
        node = lease.rpartition(":")[0]
        really = self.ended.get(lease)
        if change.after == "completed":
            if really != "completed":
                raise Violation(f"{change.task_id}: completed, but {lease} is {really}")
            return
        if lease not in self.live and (really is not None or lease in self._settled):
            if really == "completed" and not self._excused(change, node):
                raise Violation(f"{change.task_id}: {change.after}, but {lease} had completed")
            return
        if change.after == "failed" and change.step.details.get("reason") == "refused":
            return  # it never left the controller
        if not self._facts.silent(node):
            state = "lives" if lease in self.live else "is not settled"
            raise Violation(f"{change.task_id}: {change.step.what}, but {lease} {state}")
        self.cut_off.add(lease)

    def _excused(self, change: Change, node: str) -> bool:
        return self._facts.cancelled(change.task_id) or self._facts.silent(node)


def orphans(processes: Iterable[Process], lives: Mapping[str, Life]) -> list[Process]:
    """Return the processes that no claimed or running row owns."""
    return [
        process
        for process in processes
        if lives[process.task_id].lease != process.lease
        or lives[process.task_id].status not in HELD
    ]
