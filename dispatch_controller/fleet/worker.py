"""A node served by an HTTP worker, as a `Transport` (nodes.md, Transports).

A worker is pushed to, or it polls: then nothing is ever sent to it, and what it said last counts.
Workers in the field know neither leases' ends nor `void`; docs/decisions/ says what settles a
start there. Ours (docs/workers.md) answers those too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import httpx
import trio

from dispatch_controller.fleet.http import Answer, NoAnswer, NotSent, exchange
from dispatch_controller.fleet.listing import (
    RunningTask,
    find,
    listing,
    named,
    observe_listed,
)
from dispatch_controller.fleet.observation import instant, observe
from dispatch_controller.fleet.replies import log_chunk, node_probe
from dispatch_controller.fleet.traffic import Traffic
from dispatch_controller.fleet.transport import NodeUnfit, TransportLost
from dispatch_controller.fleet.worker_payload import execute_fields
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

HEARD_WITHIN = 60.0
"""Seconds for which the last word of a worker that polls is good."""
SETTLED = 60.0
"""Seconds after which a worker that answers, and does not list a task it was sent, never starts it
(docs/decisions/). Ours drops a fetched task after half of it."""
PATIENCE = 60.0
"""Seconds that a claim waits to be fetched before it is taken back."""


class Heard(Protocol):
    """What the registry knows of a worker: loops/workers.py, Worker."""

    @property
    def last_seen(self) -> float: ...
    @property
    def listed_at(self) -> float | None: ...
    @property
    def running_tasks(self) -> Sequence[RunningTask]: ...
    @property
    def clock_skew(self) -> float | None: ...


class WorkerDirectory(Protocol):
    """What the fleet asks of the registry of workers."""

    def serves(self, node: str) -> bool: ...
    def get(self, node: str) -> Heard | None: ...
    def url(self, node: str, now: float) -> str | None: ...
    def pulls(self, node: str, now: float) -> bool: ...
    def handed(self, lease: str) -> float | None: ...
    def untouched(self, lease: str) -> bool: ...
    def withdraw(self, lease: str, now: float) -> None: ...


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Seconds."""

    execute: float = 60.0
    """Ours answers when the process exists, in git mode after the clone."""
    request: float = 10.0


class WorkerTransport:
    """`Transport` to one node by its HTTP worker. `token` is shown to it, where there is one."""

    machine = None
    """No host to bring code to: a worker's tasks fetch theirs."""

    def __init__(
        self,
        node: str,
        work_dir: str,
        directory: WorkerDirectory,
        client: httpx.AsyncClient,
        clock: Clock,
        token: str | None = None,
        limits: WorkerLimits | None = None,
    ) -> None:
        self.node = node
        self.traffic = Traffic()
        self._work_dir = work_dir
        self._directory = directory
        self._client = client
        self._clock = clock
        self._token = token
        self._limits = limits or WorkerLimits()
        self._doubtful: dict[str, tuple[float, str]] = {}
        """Lease → when it was sent, or first asked about, which `void` counts from; and its task's
        id, which is that of its folder where this process did not send it."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Nothing to keep: the worker speaks by itself. Until cancelled."""
        task_status.started()
        await trio.sleep_forever()

    async def start(self, order: StartOrder) -> StartOutcome:
        """Push one attempt. ACCEPTED is the worker's word that the process exists."""
        body = execute_fields(order, self._work_dir)
        try:
            answer = await self._post("execute", body, timeout=self._limits.execute)
        except _NotReached as lost:
            return Refused("unreachable", lost.message)
        except TransportLost as lost:
            self._doubtful[order.lease] = (self._clock.wall(), order.task_id)
            return Unknown(str(lost))
        if answer.status == 200 and answer.body.get("status") == "ACCEPTED":
            return Started(self._accepted(order, answer))
        reason = _REFUSALS.get(answer.status)
        if answer.status == 409 and isinstance(answer.body.get("reason"), str):
            reason = str(answer.body["reason"])[:64]
        if reason is not None:
            return Refused(reason, answer.error, self._told(answer))
        self._doubtful[order.lease] = (self._clock.wall(), order.task_id)
        return Unknown(f"{self.node}: execute was answered with {answer.error}")

    def _accepted(self, order: StartOrder, answer: Answer) -> Observation:
        told = self._told(answer)
        if told is not None and told.lease == order.lease:
            return told
        now = self._clock.wall()
        return Observation(
            self.node, order.project, order.folder, order.task_id, order.lease, order.attempt,
            RunState.RUNNING, alive=True, started_at=now, heartbeat_at=now,
        )  # fmt: skip

    def _told(self, answer: Answer) -> Observation | None:
        """Return the Task that a worker of ours puts into its answer."""
        try:
            return observe(self.node, answer.body["task"], self._offset(answer.body))
        except (KeyError, ValueError):
            return None

    async def void(self, ref: TaskRef) -> VoidOutcome:
        """Settle a start whose outcome is not known; raises TransportLost while that is too soon.

        A worker of ours voids durably. For others: listed is adopted; not listed by a worker that
        answers, long enough after it was sent, is killed all the same and counts as void.
        """
        now = self._clock.wall()
        since, task_id = self._doubtful.setdefault(ref.lease, (now, ref.folder))
        if self._pulls(now):
            outcome = self._void_fetched(ref, now - since, now)
        else:
            outcome = await self._void_pushed(ref, task_id, now - since)
        self._doubtful.pop(ref.lease, None)
        return outcome

    def _void_fetched(self, ref: TaskRef, age: float, now: float) -> VoidOutcome:
        if age >= PATIENCE:
            self._directory.withdraw(ref.lease, now)
            if self._directory.untouched(ref.lease):
                return Voided()
        worker = self._heard(now)
        listed = find(worker.running_tasks, ref)
        if listed is not None:
            return Adopted(self._of_ref(listed, ref, worker))
        if age < PATIENCE:
            raise TransportLost(self.node, f"{ref.folder} waits to be fetched by its worker")
        since = self._directory.handed(ref.lease) or now - age
        if (worker.listed_at or 0.0) - since <= SETTLED:
            raise TransportLost(self.node, f"{ref.folder} was fetched and may still be started")
        return Voided()

    async def _void_pushed(self, ref: TaskRef, task_id: str, age: float) -> VoidOutcome:
        fields = _fields(ref, task_id)
        answer = await self._post("void", fields)
        if answer.status == 200:
            told = self._told(answer)
            if answer.body.get("outcome") == "voided":
                return Voided()
            if told is not None:
                return Adopted(told)
        if answer.status not in _NO_SUCH_CALL:
            raise TransportLost(self.node, f"void was answered with {answer.error}")
        listed = find(await self._list(), ref)
        if listed is None and age >= SETTLED:
            await self._post("kill", fields)
            listed = find(await self._list(), ref)
            if listed is None:
                return Voided()
        if listed is None:
            raise TransportLost(self.node, f"{ref.folder} was sent and may still be started")
        return Adopted(self._of_ref(listed, ref, None))

    async def collect(self) -> Collection:
        """Return what the worker says it runs: asked for, or as of its last poll."""
        now = self._clock.wall()
        if self._pulls(now):
            worker = self._heard(now)
            offset = -(worker.clock_skew or 0.0)
            listed = worker.running_tasks
            at = worker.listed_at or now
        else:
            answer = await self._get("status")
            listed, offset = self._listed(answer), self._offset(answer.body)
            at = self._clock.wall()
        seen = tuple(observe_listed(self.node, one, at, offset) for one in listed)
        return Collection(self.node, at, seen)

    async def kill(self, ref: TaskRef, grace: float) -> KillOutcome:
        """Have the task ended. One that polls is told by the answer to its next heartbeat."""
        now = self._clock.wall()
        pulls = self._pulls(now)
        tasks = self._heard(now).running_tasks if pulls else await self._list()
        listed = find(tasks, ref)
        if listed is None:
            return KillOutcome.GONE
        if listed.lease_owner not in (None, ref.lease):
            return KillOutcome.OTHER_LEASE
        if pulls:
            return KillOutcome.ENDING
        answer = await self._post("kill", {**_fields(ref, listed.task_id), "grace": grace})
        if answer.status != 200:
            raise TransportLost(self.node, f"kill was answered with {answer.error}")
        said = answer.body.get("outcome")
        return KillOutcome(said) if said in tuple(KillOutcome) else KillOutcome.ENDING

    async def probe(self, programs: Sequence[str] = ()) -> Probe:
        """Return that it lives, and what its metrics say, if they say it as JSON."""
        now = self._clock.wall()
        if self._pulls(now):
            worker = self._heard(now)
            return Probe(self.node, worker.last_seen, 0.0, worker.clock_skew or 0.0)
        began = trio.current_time()
        health = await self._get("health")
        at, took = self._clock.wall(), trio.current_time() - began
        metrics = await self._get("metrics", {"programs": ",".join(programs)}, must=False)
        if isinstance(metrics.body.get("now"), int | float):
            probe = node_probe(self.node, metrics.body, at, took)
        else:
            probe = Probe(self.node, at, took, 0.0)
        sent = instant(health.body.get("timestamp"))
        return probe if sent is None else replace(probe, clock_skew=sent - (at - took / 2))

    async def ack(self, refs: Sequence[TaskRef]) -> None:
        """Nothing to send: the answer to its report acknowledges an end to a worker."""

    async def cleanup(self, tasks: Sequence[tuple[str, str]]) -> None:
        raise TransportLost(self.node, "an HTTP worker keeps its own folders tidy")

    async def salvage(self, project: str, folder: str) -> str | None:
        """None: no worker can be asked for that."""
        return None

    async def read_log(
        self, project: str, folder: str, offset: int, limit: int, name: str = "task.log"
    ) -> LogChunk:
        """Return a piece of a log, from a worker of ours that listens; no other serves any."""
        if self._pulls(self._clock.wall()):
            raise TransportLost(
                self.node,
                "its worker polls and is never called: the log is on that machine, in the worker's "
                f"work-dir ({self._work_dir} unless it says otherwise): "
                f"{project}/tasks/{folder}/{name}",
            )
        query: dict[str, str | int] = {
            "project": project, "folder": folder, "offset": offset, "limit": limit, "name": name,
        }  # fmt: skip
        answer = await self._get("log", query, must=False)
        if answer.status in _NO_SUCH_CALL:
            raise TransportLost(self.node, "its HTTP worker serves no logs: look on that machine")
        try:
            return log_chunk(answer.body)
        except ValueError as error:
            raise TransportLost(self.node, f"log: {answer.error}") from error

    # --- asking

    def _pulls(self, now: float) -> bool:
        return self._directory.pulls(self.node, now)

    def _heard(self, now: float) -> Heard:
        """Return the last word of a worker that polls. Raises TransportLost where it is old."""
        worker = self._directory.get(self.node)
        if worker is None or worker.listed_at is None or now - worker.listed_at > HEARD_WITHIN:
            raise TransportLost(self.node, "its worker polls, and has not said for "
                                f"{HEARD_WITHIN:.0f} s what it runs")  # fmt: skip
        return worker

    async def _list(self) -> Sequence[RunningTask]:
        return self._listed(await self._get("status"))

    def _listed(self, answer: Answer) -> Sequence[RunningTask]:
        try:
            return listing(answer.body)
        except ValueError as error:
            raise TransportLost(self.node, f"status: {error}") from error

    def _of_ref(self, listed: RunningTask, ref: TaskRef, worker: Heard | None) -> Observation:
        """Return a listed task as the attempt that `ref` names."""
        offset = 0.0 if worker is None else -(worker.clock_skew or 0.0)
        seen = observe_listed(self.node, listed, self._clock.wall(), offset)
        return named(seen, ref)

    def _offset(self, body: Mapping[str, Any]) -> float:
        """Return our clock minus the worker's, by the time that its answer carries."""
        said = instant(body.get("timestamp"))
        return 0.0 if said is None else self._clock.wall() - said

    async def _post(
        self, call: str, body: Mapping[str, Any], timeout: float | None = None
    ) -> Answer:
        return await self._ask("POST", call, body=body, timeout=timeout)

    async def _get(
        self, call: str, query: Mapping[str, str | int] | None = None, *, must: bool = True
    ) -> Answer:
        answer = await self._ask("GET", call, query=query)
        if must and answer.status != 200:
            raise TransportLost(self.node, f"{call} was answered with {answer.error}")
        return answer

    async def _ask(
        self,
        method: str,
        call: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | int] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        url = self._directory.url(self.node, self._clock.wall())
        if url is None:
            raise _NotReached(self.node, "its worker has not been heard of for 60 s")
        with self.traffic.call():
            try:
                answer = await exchange(
                    self._client, method, f"{url.rstrip('/')}/v1/{call}", token=self._token,
                    body=body, query=query, timeout=timeout or self._limits.request,
                )  # fmt: skip
            except NotSent as error:
                raise _NotReached(self.node, str(error)) from error
            except NoAnswer as error:
                raise TransportLost(self.node, str(error)) from error
        if answer.status in (401, 403) and call != "execute":
            raise NodeUnfit(
                self.node, f"its worker does not let the controller in: {answer.error}; "
                "start it with the controller's own token"
            )  # fmt: skip
        return answer


class _NotReached(TransportLost):
    """Nothing was sent."""


_REFUSALS = {
    400: "bad_order",
    401: "unauthorized",
    403: "unauthorized",
    413: "bad_order",
    429: "no_slot",
}
"""Answers to /v1/execute that say clearly that nothing was started, nor will be."""
_NO_SUCH_CALL = (404, 405, 501)


def _fields(ref: TaskRef, task_id: str) -> dict[str, Any]:
    """Return how a worker is told of an attempt; those in the field look at task_id alone."""
    return {
        "task_id": task_id, "lease_owner": ref.lease, "project": ref.project,
        "folder": ref.folder,
    }  # fmt: skip
