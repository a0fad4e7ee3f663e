"""The wrapper's `serve`, as a `Transport`: one channel per node, kept alive, state told unasked."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
import trio

from dispatch_controller.fleet.bundle import Bundle
from dispatch_controller.fleet.conversation import Conversation
from dispatch_controller.fleet.deploy import launch
from dispatch_controller.fleet.observation import observe
from dispatch_controller.fleet.orders import order_fields, ref_fields
from dispatch_controller.fleet.replies import log_chunk, node_probe
from dispatch_controller.fleet.traffic import Traffic
from dispatch_controller.fleet.transport import Machine, NodeUnfit, Reporter, TransportLost
from dispatch_controller.model import (
    Adopted,
    Collection,
    KillOutcome,
    LogChunk,
    Observation,
    Probe,
    Refused,
    Started,
    StartOrder,
    StartOutcome,
    TaskRef,
    Unknown,
    Voided,
    VoidOutcome,
)
from dispatch_controller.runtime.clock import Clock

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServeLimits:
    """Seconds."""

    request: float = 30.0
    start: float = 60.0
    first_retry: float = 0.2
    last_retry: float = 30.0
    unfit_retry: float = 60.0
    """A node that a person must mend is tried this often."""
    settled: float = 10.0
    """A conversation that lasted this long resets the back-off."""


class ServeTransport:
    """`Transport` over one `serve` channel; `run` keeps it open.

    While the first connection, or the first after a good one, is being made, requests wait for
    it within their time-outs; once an attempt has failed they fail at once, with its reason,
    until one succeeds.
    """

    def __init__(
        self,
        machine: Machine,
        root: str,
        owner: str,
        wrapper: Bundle,
        reporter: Reporter,
        clock: Clock,
        limits: ServeLimits | None = None,
    ) -> None:
        self.node = machine.node
        self.machine = machine
        self.traffic = Traffic()
        self.hello: dict[str, Any] | None = None
        """What the last `serve` said of itself."""
        self._root = root
        self._owner = owner
        self._wrapper = wrapper
        self._reporter = reporter
        self._clock = clock
        self._limits = limits or ServeLimits()
        self._conversation: Conversation | None = None
        self._failure: TransportLost | None = None
        self._changed = trio.Event()
        self._hurry = trio.Event()
        self._offset = 0.0

    # --- keeping the channel

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep one `serve` open, with back-off, until cancelled."""
        task_status.started()
        try:
            await self._keep_talking()
        finally:
            self._become(None, TransportLost(self.node, "this node's transport was stopped"))

    async def _keep_talking(self) -> None:
        delay = self._limits.first_retry
        said = ""
        while True:
            began = trio.current_time()
            try:
                await self._converse()
            except TransportLost as lost:
                good = trio.current_time() - began >= self._limits.settled
                if self._hurry.is_set() or (good and self._conversation is not None):
                    delay = self._limits.first_retry
                    self._become(None, None)
                else:
                    self._become(None, lost)
                if lost.message != said:  # a node that stays away is told once
                    log.warning("serve lost", node=self.node, reason=lost.message)
                    said = lost.message
                unfit = isinstance(lost, NodeUnfit)
            with trio.move_on_after(self._limits.unfit_retry if unfit else delay):
                await self._hurry.wait()
            self._hurry = trio.Event()
            delay = min(delay * 2, self._limits.last_retry)

    def reconnect(self, wrapper: Bundle | None = None) -> None:
        """Drop the channel, or cut the back-off short, and open one now; with another wrapper's
        release where one is given. Tasks do not notice."""
        if wrapper is not None:
            self._wrapper = wrapper
        self._hurry.set()
        if self._conversation is not None:
            self._conversation.end(TransportLost(self.node, "reconnecting"))

    async def _converse(self) -> None:
        """One life of the channel. Always ends by raising TransportLost (or Cancelled)."""
        channel, hello = await launch(self.machine, self._root, self._owner, self._wrapper)
        try:
            self.hello = hello
            conversation = Conversation(self.node, channel, self._on_event)
            self._become(conversation, None)
            log.info("serve is up", node=self.node, pid=hello.get("pid"))
            await conversation.run()
        finally:
            await channel.aclose()
        raise conversation.lost or TransportLost(self.node, "the channel ended")

    def _become(self, conversation: Conversation | None, failure: TransportLost | None) -> None:
        self._conversation, self._failure = conversation, failure
        self._changed.set()
        self._changed = trio.Event()

    def _on_event(self, event: dict[str, Any]) -> None:
        tasks = event.get("tasks") if event["event"] == "state" else [event.get("task")]
        if event["event"] not in ("state", "task") or not isinstance(tasks, list):
            return
        try:
            seen = self._observe_all(event.get("now"), tasks)
        except ValueError as error:
            # Nothing is concluded from what was not told; the next collection tells it again.
            log.warning("serve told nonsense", node=self.node, error=str(error))
            return
        self._reporter(seen)

    def _observe_all(self, now: object, tasks: list[Any]) -> list[Observation]:
        if isinstance(now, int | float):
            self._offset = self._clock.wall() - now
        return [observe(self.node, task, self._offset) for task in tasks]

    # --- requests

    async def _ask(self, op: str, timeout: float, **fields: object) -> dict[str, Any]:
        with self.traffic.call():
            return await self._ask_within(op, timeout, fields)

    async def _ask_within(
        self, op: str, timeout: float, fields: Mapping[str, object]
    ) -> dict[str, Any]:
        with trio.move_on_after(timeout):
            while self._conversation is None:
                failure = self._failure
                if failure is not None:
                    await trio.lowlevel.checkpoint()
                    raise failure.again()
                await self._changed.wait()
            return await self._conversation.ask(op, fields)
        raise TransportLost(self.node, f"no answer to {op} within {timeout:g} s")

    def _seen(self, op: str, result: dict[str, Any]) -> Observation:
        try:
            return observe(self.node, result.get("task"), self._offset)
        except ValueError as error:
            raise TransportLost(self.node, f"{op}: {error}") from error

    async def start(self, order: StartOrder) -> StartOutcome:
        """Start one attempt. An answer that is lost, late or unreadable is `Unknown`."""
        return await self.start_fields(order_fields(order))

    async def start_fields(self, order: Mapping[str, Any]) -> StartOutcome:
        """As `start`, for an order in the form of the wrapper's protocol, which checks it."""
        try:
            result = await self._ask("start", self._limits.start, order=order)
            outcome = result.get("outcome")
            if outcome == "running":
                return Started(self._seen("start", result))
            if outcome == "refused":
                seen = self._seen("start", result) if result.get("task") else None
                return Refused(str(result.get("reason")), str(result.get("message") or ""), seen)
        except TransportLost as lost:
            return Unknown(str(lost))
        return Unknown(f"{self.node}: start was answered with {outcome!r}")

    async def void(self, ref: TaskRef) -> VoidOutcome:
        result = await self._ask("void", self._limits.request, **ref_fields(ref))
        if result.get("outcome") == "voided":
            return Voided()
        if result.get("outcome") in ("running", "final"):
            return Adopted(self._seen("void", result))
        raise self._unreadable("void", result)

    async def collect(self) -> Collection:
        result = await self._ask("collect", self._limits.request)
        tasks = result.get("tasks")
        if not isinstance(tasks, list):
            raise self._unreadable("collect", result)
        try:
            seen = self._observe_all(result.get("now"), tasks)
        except ValueError as error:
            raise TransportLost(self.node, f"collect: {error}") from error
        return Collection(self.node, self._clock.wall(), tuple(seen))

    async def kill(self, ref: TaskRef, grace: float) -> KillOutcome:
        result = await self._ask("kill", self._limits.request, **ref_fields(ref), grace=grace)
        with contextlib.suppress(ValueError):
            return KillOutcome(str(result.get("outcome")))
        raise self._unreadable("kill", result)

    async def probe(self, programs: Sequence[str] = ()) -> Probe:
        began = trio.current_time()
        result = await self._ask("probe", self._limits.request, programs=list(programs))
        try:
            probe = node_probe(self.node, result, self._clock.wall(), trio.current_time() - began)
        except ValueError as error:
            raise TransportLost(self.node, f"probe: {error}") from error
        self._offset = -probe.clock_skew
        return probe

    async def ack(self, refs: Sequence[TaskRef]) -> None:
        leases = [ref_fields(ref) for ref in refs]
        await self._ask("ack", self._limits.request, leases=leases)

    async def cleanup(self, tasks: Sequence[tuple[str, str]]) -> None:
        named = [{"project": project, "folder": folder} for project, folder in tasks]
        await self._ask("cleanup", self._limits.request, tasks=named)

    async def salvage(self, project: str, folder: str) -> str | None:
        result = await self._ask("salvage", self._limits.start, project=project, folder=folder)
        where = result.get("ref") or result.get("path")
        return where if isinstance(where, str) else None

    async def read_log(
        self, project: str, folder: str, offset: int, limit: int, name: str = "task.log"
    ) -> LogChunk:
        result = await self._ask(
            "log",
            self._limits.request,
            project=project,
            folder=folder,
            offset=offset,
            limit=limit,
            name=name,
        )
        try:
            return log_chunk(result)
        except ValueError as error:
            raise TransportLost(self.node, f"log: {error}") from error

    def _unreadable(self, op: str, result: dict[str, Any]) -> TransportLost:
        return TransportLost(self.node, f"{op}: an answer that cannot be read: {result!r:.200}")
