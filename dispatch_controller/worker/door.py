"""What a worker that listens answers (nodes.md, HTTP worker; docs/workers.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dispatch_controller.core.times import iso
from dispatch_controller.fleet.observation import task_fields
from dispatch_controller.fleet.serve import ServeTransport
from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.model import (
    Adopted,
    Observation,
    Probe,
    Refused,
    Started,
    TaskRef,
)
from dispatch_controller.runtime.clock import Clock
from dispatch_controller.worker.intake import FRESH, BadTask, Intake
from dispatch_controller.worker.ledger import Ledger
from dispatch_controller.worker.service import GRACE, Service

Reply = tuple[int, Mapping[str, Any]]
_STATUS = {"no_slot": 429, "bad_order": 400}


class WorkerDoor:
    """Each call returns an HTTP status and a JSON object."""

    def __init__(
        self,
        node: str,
        ledger: Ledger,
        intake: Intake,
        transport: ServeTransport,
        service: Service,
        clock: Clock,
    ) -> None:
        self._node = node
        self._ledger = ledger
        self._intake = intake
        self._transport = transport
        self._service = service
        self._clock = clock

    async def execute(self, body: Mapping[str, Any]) -> Reply:
        if not self._service.looked.is_set():
            return self._not_yet()
        try:
            outcome = await self._intake.start(body, self._clock.wall() + FRESH)
        except BadTask as error:
            return 400, {"error": str(error)}
        if isinstance(outcome, Started):
            return 200, {"status": "ACCEPTED", **self._told(outcome.observation)}
        if isinstance(outcome, Refused):
            status = _STATUS.get(outcome.reason, 409)
            return status, {
                "status": "REFUSED",
                "reason": outcome.reason,
                "error": outcome.message or outcome.reason,
                **self._told(outcome.observation),
            }
        return 503, {"error": outcome.message}

    async def kill(self, body: Mapping[str, Any]) -> Reply:
        ref, grace = self._ref(body), body.get("grace", GRACE)
        if ref is None or not isinstance(grace, int | float):
            return 200, {"status": "OK", "outcome": "gone", **self._told(None)}
        outcome = await self._transport.kill(ref, min(max(float(grace), 0.0), 3600.0))
        return 200, {"status": "OK", "outcome": str(outcome), **self._told(None)}

    async def void(self, body: Mapping[str, Any]) -> Reply:
        fields = [body.get(name) for name in ("project", "folder", "lease_owner")]
        if not all(isinstance(field, str) and field for field in fields):
            return 400, {"error": "void needs project, folder and lease_owner"}
        outcome = await self._transport.void(TaskRef(*map(str, fields)))
        if isinstance(outcome, Adopted):
            return 200, {"outcome": "adopted", **self._told(outcome.observation)}
        return 200, {"outcome": "voided", **self._told(None)}

    async def status(self) -> Reply:
        if not self._service.looked.is_set():
            return self._not_yet()
        now = self._clock.wall()
        return 200, {
            "status": "OK",
            "node_id": self._node,
            "slots_free": self._ledger.free,
            "max_slots": self._ledger.slots,
            "running_tasks": self._ledger.listing(now, ends=True),
            "timestamp": iso(now),
        }

    async def health(self) -> Reply:
        if not self._service.looked.is_set():
            return self._not_yet()
        now = iso(self._clock.wall())
        return 200, {"status": "OK", "node_id": self._node, "timestamp": now}

    async def metrics(self, query: Mapping[str, str]) -> Reply:
        programs = [name for name in query.get("programs", "").split(",") if name][:20]
        return 200, _probe_fields(await self._transport.probe(programs), self._clock.wall())

    async def log(self, query: Mapping[str, str]) -> Reply:
        try:
            offset, limit = int(query.get("offset", "0")), int(query.get("limit", "65536"))
        except ValueError:
            return 400, {"error": "offset, limit: whole numbers are needed"}
        chunk = await self._transport.read_log(
            query.get("project", ""), query.get("folder", ""), offset, limit,
            query.get("name", "task.log"),
        )  # fmt: skip
        return 200, {
            "offset": chunk.offset, "size": chunk.size, "text": chunk.text, "alive": chunk.alive,
        }  # fmt: skip

    async def answer(self, call: str, given: Mapping[str, Any]) -> Reply:
        """Answer any of them; what the wrapper's `serve` cannot say now is 503."""
        try:
            if call in ("status", "health"):
                return await (self.status() if call == "status" else self.health())
            calls = {
                "execute": self.execute, "kill": self.kill, "void": self.void,
                "metrics": self.metrics, "log": self.log,
            }  # fmt: skip
            return await calls[call](given)
        except TransportLost as lost:
            return 503, {"error": lost.message}

    def _ref(self, body: Mapping[str, Any]) -> TaskRef | None:
        """Return the attempt that is meant: of this lease, or the one that lives of this task."""
        lease = body.get("lease_owner")
        for known in sorted(self._ledger.leases()):
            seen = self._ledger.get(known)
            if seen is None or seen.task_id != body.get("task_id"):
                continue
            if lease in (None, known) and (lease == known or seen.alive):
                return TaskRef(seen.project, seen.folder, known)
        return None

    def _told(self, seen: Observation | None) -> dict[str, Any]:
        told = {} if seen is None else {"task": task_fields(seen)}
        return {**told, "timestamp": iso(self._clock.wall())}

    def _not_yet(self) -> Reply:
        return 503, {"error": "the worker is starting and does not know yet what runs here"}


def _probe_fields(probe: Probe, now: float) -> dict[str, Any]:
    """Return the result of the wrapper's `probe` (docs/wrapper-protocol.md), by our clock."""
    names = (
        "load", "cpus", "memory_total", "memory_free", "disk_total", "disk_free", "wrapper",
        "python", "git", "boot_id", "agents",
    )  # fmt: skip
    return {"now": now, **{name: getattr(probe, name) for name in names}}
