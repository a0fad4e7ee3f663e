"""HTTP workers: what their heartbeats and polls said, kept in memory (http.md, nodes.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dispatch_controller.fleet.listing import RunningTask
from dispatch_controller.node_files import POLLS

HEARD_WITHIN = 60.0
"""Seconds for which a heartbeat names a way to a node, and a poll keeps pushes away from it."""
REMEMBERED = 3600.0
"""Seconds for which it is kept which claims were handed out, or will not be any more."""
DEFAULT_PORT = 8081
MOST = 2000
"""Workers remembered; the one that was silent longest goes first."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker last said. Times are Unix seconds by the controller's clock."""

    node_id: str
    address: str
    """The address it first spoke from: what its node_id is bound to without a token."""
    url: str
    last_seen: float
    slots_free: int | None = None
    max_slots: int | None = None
    cpu: float | None = None
    mem: float | None = None
    running_tasks: tuple[RunningTask, ...] = ()
    listed_at: float | None = None
    """When it last said what it runs."""
    last_poll: float | None = None
    clock_skew: float | None = None
    """Its clock minus ours, as of its last message that carried a time."""


@dataclass(frozen=True, slots=True)
class Message:
    """A heartbeat or a poll."""

    node_id: str
    address: str
    at: float
    worker_url: str | None = None
    slots_free: int | None = None
    max_slots: int | None = None
    cpu: float | None = None
    mem: float | None = None
    running_tasks: Sequence[RunningTask] | None = None
    sent_at: float | None = None
    """By the worker's clock."""
    poll: bool = False


@dataclass(slots=True)
class WorkerRegistry:
    """Changed only on Trio's thread."""

    configured: Mapping[str, str] = field(default_factory=dict)
    """Node → worker_url of nodes.json, which outranks what the worker says."""
    _workers: dict[str, Worker] = field(default_factory=dict)
    _serving: dict[str, bool] = field(default_factory=dict)
    _offered: dict[str, float] = field(default_factory=dict)
    _handed: dict[str, float] = field(default_factory=dict)
    _withdrawn: dict[str, float] = field(default_factory=dict)

    def heard(self, said: Message) -> Worker:
        """Take in a message; what it does not say stays as it was."""
        before = self._workers.pop(said.node_id, None)
        worker = before or Worker(said.node_id, said.address, "", said.at)
        fresh = {
            name: value
            for name in ("slots_free", "max_slots", "cpu", "mem")
            if (value := getattr(said, name)) is not None
        }
        if said.running_tasks is not None:
            fresh |= {"running_tasks": tuple(said.running_tasks), "listed_at": said.at}
        if said.sent_at is not None:
            fresh["clock_skew"] = said.sent_at - said.at
        if said.poll:
            fresh["last_poll"] = said.at
        else:
            fresh["url"] = said.worker_url or _own_url(said.address)
        worker = replace(worker, last_seen=said.at, **fresh)
        self._workers[said.node_id] = worker  # at the end: the first is the longest silent
        if len(self._workers) > MOST:
            del self._workers[next(iter(self._workers))]
        return worker

    def get(self, node: str) -> Worker | None:
        return self._workers.get(node)

    def all(self) -> list[Worker]:
        """Return the workers by name."""
        return [worker for _, worker in sorted(self._workers.items())]

    def url(self, node: str, now: float) -> str | None:
        """Return where the node takes /v1/execute: nodes.json, else a heartbeat within 60 s."""
        configured = self.configured.get(node)
        if configured is not None:
            return None if configured == POLLS else configured
        worker = self._workers.get(node)
        if worker is None or now - worker.last_seen > HEARD_WITHIN:
            return None
        return worker.url or None

    def pulls(self, node: str, now: float) -> bool:
        """Whether the node polled within 60 s, or only ever polls: nothing is pushed to it."""
        worker = self._workers.get(node)
        polled = None if worker is None else worker.last_poll
        recently = polled is not None and now - polled <= HEARD_WITHIN
        return recently or self.configured.get(node) == POLLS

    # --- which nodes are served by their worker (nodes.md, Transports)

    def serves(self, node: str) -> bool:
        """Whether the way to the node is its HTTP worker. It changes while it holds no task."""
        return self._serving.get(node, False)

    def changing(self, nodes: Iterable[str], now: float) -> set[str]:
        """Return the nodes whose way is not the one that would be chosen now.

        They get no new task until that has become their way.
        """
        return {node for node in nodes if self.wanted(node, now) != self._serving.get(node)}

    def decided(self, node: str) -> bool:
        """Whether a way was ever chosen for the node."""
        return node in self._serving

    def remember(self, ways: Mapping[str, bool]) -> None:
        """Have these nodes served by their worker (True) or directly."""
        self._serving |= ways

    def wanted(self, node: str, now: float) -> bool:
        """Whether the node's way would be its worker, if it were chosen now."""
        if node in self.configured:
            return True
        return self.url(node, now) is not None or self.pulls(node, now)

    def most_slots(self) -> dict[str, int]:
        """Return how many slots the workers that serve nodes say they have."""
        return {
            worker.node_id: worker.max_slots
            for worker in self._workers.values()
            if worker.max_slots is not None and self.serves(worker.node_id)
        }

    # --- claims that a polling worker fetches

    def offer(self, lease: str, now: float) -> None:
        """Note a claim that this process has just made, and that waits to be fetched."""
        _forget(self._offered, now)
        self._offered[lease] = now

    def untouched(self, lease: str) -> bool:
        """Whether the claim was surely never handed out: neither by this process nor before it."""
        return lease in self._offered and lease not in self._handed

    def hand(self, lease: str, now: float) -> bool:
        """Note that a claim is handed out now; False where it must not be any more."""
        if self.withdrawn(lease):
            return False
        _forget(self._handed, now)
        self._handed.pop(lease, None)
        self._handed[lease] = now
        return True

    def handed(self, lease: str) -> float | None:
        """Return when the claim was last handed out by this process."""
        return self._handed.get(lease)

    def withdrawn(self, lease: str) -> bool:
        """Whether the claim was taken back."""
        return lease in self._withdrawn

    def withdraw(self, lease: str, now: float) -> None:
        """Have the claim handed out no more."""
        _forget(self._withdrawn, now)
        self._withdrawn.setdefault(lease, now)

    def shown_url(self, worker: Worker) -> str:
        """Return the address that /v1/workers tells."""
        configured = self.configured.get(worker.node_id)
        return worker.url if configured in (None, POLLS) else configured


def _own_url(address: str) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{DEFAULT_PORT}"


def _forget(times: dict[str, float], now: float) -> None:
    """Drop what is older than an hour; the oldest stand first."""
    while times and now - next(iter(times.values())) > REMEMBERED:
        del times[next(iter(times))]
