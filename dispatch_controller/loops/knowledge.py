"""What the controller knows beside the database: gone with the process, and found again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dispatch_controller.core.reports import EndedByUs
from dispatch_controller.model import Node, Observation, Probe
from dispatch_controller.node_files import ProjectEntry

SUSPECT_AFTER = 60.0
"""Seconds without an answer after which a node gets no new task (loops.md, health_check)."""

FIRST_PAUSE, MOST_PAUSE = 900.0, 14_400.0

_UNNAMED = ProjectEntry()
"""What a project is that projects.json does not name; to build one costs more than to ask."""


@dataclass(frozen=True, slots=True)
class Parked:
    """An executor and account that is rate limited."""

    until: float
    """Unix seconds."""
    pause: float
    """Seconds: what the next one will be twice of, where the error names no time."""


@dataclass(slots=True)
class Knowledge:
    """One per process, changed only on Trio's thread."""

    contacts: dict[str, float] = field(default_factory=dict)
    """Node → when it last answered, Unix seconds by our clock."""
    problems: dict[str, str] = field(default_factory=dict)
    """Node → what its last failed call said; gone with the next good answer."""
    projects: Mapping[str, ProjectEntry] = field(default_factory=dict)
    """projects.json as last read."""
    failed_on: dict[str, str] = field(default_factory=dict)
    """Task → the node on which its last attempt failed."""
    last_error: dict[str, str] = field(default_factory=dict)
    """Task → what its last attempt failed of; told to the next one."""
    nodes: Mapping[str, Node] = field(default_factory=dict)
    """The rows of `nodes` as last read."""
    parked: dict[tuple[str, str], Parked] = field(default_factory=dict)
    """(executor, api_mode) that is rate limited."""
    unfit: dict[tuple[str, str], str] = field(default_factory=dict)
    """(node, executor) → why the node cannot run it."""
    full: dict[str, str] = field(default_factory=dict)
    """Node → that its disk is full, until a probe finds room again."""
    endings: dict[str, EndedByUs] = field(default_factory=dict)
    """Lease → why its process is being ended."""
    issued: set[str] = field(default_factory=set)
    """Leases that this process gave out and that were held when it last looked."""
    ask_all: bool = False
    """The clock has jumped: all nodes are to be asked before time is trusted again."""
    in_flight: set[str] = field(default_factory=set)
    """Leases whose start this process has under way."""
    probes: dict[str, Probe] = field(default_factory=dict)
    """Node → its last answer to a probe."""
    good_probes: dict[str, int] = field(default_factory=dict)
    """Node → probes answered in a row."""
    seen: dict[str, Observation] = field(default_factory=dict)
    """Lease → what its node last said of it."""
    waiting: set[str] = field(default_factory=set)
    """Leases whose task was seen to wait for input."""
    good_wrapper: str | None = None
    """SHA-256 of the wrapper under which a task was completed last."""
    failed_starts: list[str] = field(default_factory=list)
    """Nodes whose wrapper failed to start a task, since the guardian looked."""
    cycles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Task → path of the cycle that it is in."""

    def remember_failure(self, task: str, node: str, error: str) -> None:
        """Keep where a task's last attempt failed and of what, for its next one."""
        self.failed_on[task] = node
        if error:
            self.last_error[task] = error

    def answered(self, node: str, at: float) -> bool:
        """Record an answer; return whether the node was out of touch before it."""
        back = not self.in_touch(node, at)
        self.contacts[node] = max(at, self.contacts.get(node, at))
        self.problems.pop(node, None)
        return back

    def in_touch(self, node: str, now: float) -> bool:
        return now - self.contacts.get(node, float("-inf")) <= SUSPECT_AFTER

    def alive(self, now: float) -> frozenset[str]:
        """Nodes that may get tasks, as far as answering goes."""
        return frozenset(node for node in self.contacts if self.in_touch(node, now))

    def project(self, name: str) -> ProjectEntry:
        """The project's entry; one that projects.json does not name has all defaults."""
        return self.projects.get(name) or _UNNAMED

    def park(self, node: str, until: float | None, now: float) -> None:
        """Park the executor of `node`, for every node of its api_mode, after a rate limit.

        Until the reset time its error named, else 15 min, doubling to 4 h while it keeps happening
        (scheduling.md, Whose fault). Hits that come in while it is parked are the same one.
        """
        row = self.nodes.get(node)
        if row is None:
            return
        key = (row.executor, row.api_mode)
        before = self.parked.get(key)
        if before is not None and before.until > now:
            return
        recent = before is not None and now - before.until < 2 * before.pause
        pause = min(2 * before.pause, MOST_PAUSE) if before and recent else FIRST_PAUSE
        self.parked[key] = Parked(until if until and until > now else now + pause, pause)

    @property
    def owned_fails(self) -> frozenset[str]:
        """Projects in which changing a file of another live task fails the attempt."""
        return frozenset(
            name for name, project in self.projects.items() if project.write_set == "fail_if_owned"
        )

    @property
    def paused(self) -> frozenset[str]:
        return frozenset(name for name, project in self.projects.items() if project.paused)
