"""HTTP workers: what their heartbeats and polls said, kept in memory (http.md, nodes.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

HEARD_WITHIN = 60.0
"""Seconds for which a heartbeat names a way to a node, and a poll keeps pushes away from it."""
DEFAULT_PORT = 8081
MOST = 2000
"""Workers remembered; the one that was silent longest goes first."""


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that a worker says it runs. Times in seconds."""

    task_id: str
    lease_owner: str | None = None
    elapsed: float | None = None
    timeout: float | None = None


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
            fresh["running_tasks"] = tuple(said.running_tasks)
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
            return configured
        worker = self._workers.get(node)
        if worker is None or now - worker.last_seen > HEARD_WITHIN:
            return None
        return worker.url or None

    def pulls(self, node: str, now: float) -> bool:
        """Whether the node polled within 60 s: then nothing is ever pushed to it."""
        worker = self._workers.get(node)
        polled = None if worker is None else worker.last_poll
        return polled is not None and now - polled <= HEARD_WITHIN

    def shown_url(self, worker: Worker) -> str:
        """Return the address that /v1/workers tells."""
        return self.configured.get(worker.node_id) or worker.url


def _own_url(address: str) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{DEFAULT_PORT}"
