"""Where a task may run, and why it does not: one set of rules for both (scheduling.md).

Pure: a pass is `Board(...)`, then `place`; an explanation is the same board asked about one task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dispatch_controller.core import ids
from dispatch_controller.core.paths import HeldPaths
from dispatch_controller.core.times import iso
from dispatch_controller.model import BACKOFF_OWNER, Node, SpecExtras, Task, TaskStatus

FALLBACK = {"codex": "glm"}
"""Executors that fall back to another one where no node for them is free or known."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a task is not running: `kind` and `details` for programs, `text` for people."""

    kind: str
    text: str
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placement:
    task: Task
    node: str
    executor: str


@dataclass(frozen=True, slots=True)
class Lock:
    """A row of file_locks whose task belongs to `project`."""

    project: str
    path: str
    task_id: str


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is known beside the database, at the moment of the pass."""

    extras: Mapping[str, SpecExtras]
    """By spec file. A file that is not here is gone, or was never read."""
    alive: frozenset[str]
    """Nodes that answered lately."""
    unasked: frozenset[str] = frozenset()
    """Nodes of which nothing is known yet: the controller has just started."""
    failed_on: Mapping[str, str] = field(default_factory=dict)
    """The node on which a task failed in its last attempt."""
    parked: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(executor, api_mode) that is rate limited, and until when (Unix seconds)."""
    paused: frozenset[str] = frozenset()
    """Projects whose entry in projects.json says `paused`."""
    unfit: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(node, executor) that the node's fingerprint cannot serve, and why."""
    closed: Mapping[str, str] = field(default_factory=dict)
    """Node that answers and takes no task at all, and why."""
    most: Mapping[str, int] = field(default_factory=dict)
    """Slots that a node's worker says it has: it gets no more, whatever nodes.json says."""


class Board:
    """The state of the fleet during one pass; `take` fills slots and files as it goes."""

    def __init__(
        self,
        nodes: Sequence[Node],
        held: Iterable[Task],
        locks: Iterable[Lock],
        conditions: Conditions,
        now: float,
    ) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._conditions = conditions
        self._now = now
        most = conditions.most
        self._free = {node.name: min(node.slots, most.get(node.name, node.slots)) for node in nodes}
        self._ends: dict[str, float] = {}
        self._files: dict[str, HeldPaths] = {}
        self._open: frozenset[str] | None = None
        for task in held:
            self._occupy(task, task.node)
        for lock in locks:
            self._files_of(lock.project).add(lock.task_id, [lock.path])
        self._by_executor: dict[str, list[Node]] = {}
        for node in nodes:
            self._by_executor.setdefault(node.executor, []).append(node)

    @property
    def free_slots(self) -> int:
        """Slots that a task could take now."""
        return sum(
            self._free[node.name]
            for node in self._nodes.values()
            if self._refusal(node, node.executor) is None
        )

    def know(self, extras: Mapping[str, SpecExtras]) -> None:
        """Replace what is known of spec files."""
        self._conditions = replace(self._conditions, extras=extras)

    def may_place(self, spec_file: str) -> bool:
        """Whether a task of that file could be placed as far as its executor goes: cheap."""
        extras = self._conditions.extras.get(spec_file)
        return extras is None or any(
            name in self._open_executors() for name in _names(extras.executor)
        )

    def _open_executors(self) -> frozenset[str]:
        """Executors, and names of nodes, for which a slot is free."""
        if self._open is None:
            free = [n for n in self._nodes.values() if self._refusal(n, n.executor) is None]
            self._open = frozenset(n.executor for n in free) | {n.name for n in free}
        return self._open

    def consider(self, task: Task) -> Placement | Reason:
        """Return where the task may run now, or the first rule that forbids it.

        Its dependencies and its lease have been looked at before (candidates, or `waiting`).
        """
        conditions = self._conditions
        if task.project in conditions.paused:
            return Reason("paused", f"project {task.project} is paused in projects.json")
        extras = conditions.extras.get(task.spec_file)
        if extras is None:
            return Reason(
                "spec_gone",
                f"spec file {task.spec_file} is gone or cannot be read",
                {"spec_file": task.spec_file},
            )
        conflict = self._files_of(task.project).conflict(task.modifies)
        if conflict is not None:
            path, holder = conflict
            return Reason(
                "file_held",
                f"{path or 'the whole project'} is held by {holder}",
                {"path": path, "task": holder},
            )
        return self._place_on_node(task, extras.executor)

    def take(self, placement: Placement) -> None:
        """Fill the slot and the files that the placement uses."""
        self._occupy(placement.task, placement.node)

    def _occupy(self, task: Task, node: str | None) -> None:
        self._files_of(task.project).add(task.id, task.modifies)
        if node is None or node not in self._free:
            return
        self._free[node] -= 1
        self._open = None
        if task.started_at is not None:
            end = task.started_at + task.estimated_minutes * 60
            self._ends[node] = min(end, self._ends.get(node, end))

    def _files_of(self, project: str) -> HeldPaths:
        return self._files.setdefault(project, HeldPaths())

    def _place_on_node(self, task: Task, wanted: str) -> Placement | Reason:
        refusals: list[Reason] = []
        for executor in _names(wanted):
            verdict = self._place_for(task, executor)
            if isinstance(verdict, Placement):
                return verdict
            refusals.append(verdict)
        return refusals[0]

    def _place_for(self, task: Task, executor: str) -> Placement | Reason:
        nodes = self._by_executor.get(executor, [])
        runs = executor
        if not nodes and executor in self._nodes:
            nodes, runs = [self._nodes[executor]], self._nodes[executor].executor
        if not nodes:
            return Reason(
                "no_executor",
                f"no node runs executor {executor}",
                {"executor": executor, "known": sorted(self._by_executor)},
            )
        fits = [node for node in nodes if self._refusal(node, runs) is None]
        if not fits:
            return self._no_slot(nodes, runs)
        avoid = self._conditions.failed_on.get(task.id)
        best = min(
            fits,
            key=lambda node: (
                node.name == avoid,
                node.priority,
                -self._free[node.name],
                node.name,
            ),
        )
        return Placement(task, best.name, runs)

    def _refusal(self, node: Node, executor: str) -> str | None:
        """Return why the node takes no task of this executor now, or None."""
        return (
            self._closed(node)
            or self._conditions.unfit.get((node.name, executor))
            or self._parked(node, executor)
            or ("full" if self._free[node.name] <= 0 else None)
        )

    def _parked(self, node: Node, executor: str) -> str | None:
        until = self._conditions.parked.get((executor, node.api_mode), 0.0)
        return f"rate limited until {iso(until)}" if until > self._now else None

    def _closed(self, node: Node) -> str | None:
        """Return why the node takes no task at all, or None."""
        if not node.enabled:
            return "disabled"
        if node.slots <= 0:
            return "no slots"
        if node.quarantined:
            return f"quarantined: {node.quarantine_reason or 'no reason given'}"
        if node.name not in self._conditions.alive:
            return "not asked yet" if node.name in self._conditions.unasked else "not reachable"
        return self._conditions.closed.get(node.name)

    def _no_slot(self, nodes: Sequence[Node], executor: str) -> Reason:
        states = {node.name: self._refusal(node, executor) or "full" for node in nodes}
        full = [name for name, state in states.items() if state == "full"]
        parked = [state for state in states.values() if state.startswith("rate limited")]
        ends = [self._ends[name] for name in full if name in self._ends]
        details: dict[str, object] = {"executor": executor, "nodes": states}
        if parked and not full:
            return Reason("executor_parked", f"executor {executor} is {min(parked)}", details)
        text = "no free slot: " + ", ".join(f"{name} is {why}" for name, why in states.items())
        if ends:
            details["expected"] = iso(max(min(ends), self._now))
        return Reason("no_slot", text, details)


def _names(executor: str) -> tuple[str, ...]:
    fallback = FALLBACK.get(executor)
    return (executor,) if fallback is None else (executor, fallback)


def place(board: Board, candidates: Iterable[Task]) -> list[Placement]:
    """Return the placements for candidates in their order, until no slot is free."""
    placements: list[Placement] = []
    free = board.free_slots
    for task in candidates:
        if free <= 0:
            break
        verdict = board.consider(task)
        if isinstance(verdict, Placement):
            board.take(verdict)
            placements.append(verdict)
            free -= 1
    return placements


_CYCLE_TOLD = 100


def waiting(
    task: Task,
    parents: Mapping[str, TaskStatus],
    cycle: Sequence[str] | None,
    now: float,
) -> Reason | None:
    """Return what the task waits for before any rule of the pass is asked, or None.

    `parents` are the states of those of its dependencies that exist; `cycle` is the path of the
    cycle the task is in, if it is in one.
    """
    if cycle:
        # Each task of a circle carries it: told whole, a circle of thousands would be millions.
        details = {"cycle": list(cycle[:_CYCLE_TOLD])}
        return Reason("cycle", f"in a cycle: {ids.listed(cycle, ' → ')}", details)
    if task.depends_on is None:
        return Reason("unknown_dependency", "its depends_on is not a JSON list of ids")
    unknown = [parent for parent in task.depends_on if parent not in parents]
    if unknown:
        return Reason(
            "unknown_dependency",
            f"depends on {ids.listed(unknown)}, which names no single task",
            {"unknown": unknown},
        )
    open_parents = {
        parent: parents[parent].value
        for parent in task.depends_on
        if parents[parent] is not TaskStatus.COMPLETED
    }
    if open_parents:
        listed = ids.listed([f"{parent} ({status})" for parent, status in open_parents.items()])
        return Reason("dependencies", f"waits for {listed}", {"waits_for": open_parents})
    if task.leased(now) and task.lease_expires_at is not None:
        until = iso(task.lease_expires_at)
        if task.lease_owner == BACKOFF_OWNER:
            return Reason("backoff", f"held back until {until}", {"until": until})
        return Reason(
            "leased",
            f"leased by {task.lease_owner} until {until}",
            {"lease_owner": task.lease_owner, "until": until},
        )
    return None
