"""Reports ends to the controller until it has acknowledged each.

What is to be reported is on this machine's disk: the wrapper's status.json, which is told again
and again until it is acknowledged there. So a report outlives the worker and the controller.
"""

from __future__ import annotations

from typing import Any

import structlog
import trio

from dispatch_controller.core.times import iso
from dispatch_controller.fleet.http import Answer
from dispatch_controller.fleet.observation import task_fields
from dispatch_controller.fleet.serve import ServeTransport
from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.model import Observation, RunState, TaskRef
from dispatch_controller.runtime.clock import Clock
from dispatch_controller.worker.ledger import Ledger
from dispatch_controller.worker.link import Link

log = structlog.get_logger(__name__)

FIRST_PAUSE, MOST_PAUSE = 1.0, 60.0
"""Seconds between two tries: doubled, and cut short when the controller is back."""
MOST_LOG = 8192
"""Bytes of the log's end that a report brings along."""
SETTLES = (200, 404)
"""Answers after which there is no more to say: recorded, refused as stale, or no such task."""

_WORDS = {
    RunState.COMPLETED: "COMPLETED",
    RunState.TIMEOUT: "TIMEOUT",
    RunState.FAILED: "FAILED",
}


class Reporter:
    def __init__(
        self, node: str, ledger: Ledger, link: Link, transport: ServeTransport, clock: Clock
    ) -> None:
        self._node = node
        self._ledger = ledger
        self._link = link
        self._transport = transport
        self._clock = clock
        self._complained: set[str] = set()
        self._side_by_side = trio.CapacityLimiter(8)

    async def run(self) -> None:
        """Report what has ended, as it ends, until cancelled."""
        pause = FIRST_PAUSE
        while True:
            self._ledger.ended.clear()
            self._link.back.clear()
            if await self._report_all():
                pause = FIRST_PAUSE
                await self._ledger.ended.wait()
                continue
            with trio.move_on_after(pause):
                await self._link.back.wait()
            pause = min(2 * pause, MOST_PAUSE)

    async def _report_all(self) -> bool:
        """Send every report once, a few side by side; return whether none is left."""
        async with trio.open_nursery() as nursery:
            for seen in self._ledger.unreported():
                nursery.start_soon(self._report_one, seen, name=f"report {seen.task_id}")
        return not self._ledger.unreported()

    async def _report_one(self, seen: Observation) -> None:
        async with self._side_by_side:  # a controller that first merges takes its time
            answer = await self._link.call("task_report", await self._report(seen))
        if answer is None or answer.status >= 500:
            return
        if answer.status in SETTLES:
            await self._settle(seen, answer)
        elif seen.lease not in self._complained:
            self._complained.add(seen.lease or "")
            log.error("report refused", task=seen.task_id, lease=seen.lease, reason=answer.error)

    async def _settle(self, seen: Observation, answer: Answer) -> None:
        log.info(
            "reported",
            task=seen.task_id,
            lease=seen.lease,
            state=str(seen.state),
            accepted=answer.body.get("accepted"),
            reason=answer.body.get("reason"),
        )
        self._ledger.settle(seen.lease or "")
        try:
            await self._transport.ack([TaskRef(seen.project, seen.folder, seen.lease or "")])
        except TransportLost as lost:
            log.debug("to be acknowledged again", task=seen.task_id, error=str(lost))

    async def refuse(self, seen: Observation) -> None:
        """Report a start that this machine refused. Lost: the claim is handed out once more."""
        await self._link.call("task_report", await self._report(seen))

    async def _report(self, seen: Observation) -> dict[str, Any]:
        word, now = _WORDS[seen.state], self._clock.wall()
        ok = seen.state is RunState.COMPLETED
        metrics = {
            "exit_code": seen.exit_code,
            "artifact_hash": seen.artifact_hash,
            "files_changed": seen.files_changed,
            "loc_added": seen.loc_added,
            "loc_removed": seen.loc_removed,
        }
        result: dict[str, Any] = {
            "ok": ok,
            "task_id": seen.task_id,
            "status": word,
            "artifacts": [],
            "stdout": await self._end_of_log(seen),
            "stderr": "",
            "metrics": metrics,
            "error": seen.error,
            "timestamp": iso(seen.completed_at or now),
            "protocol_version": "1",
        }
        return {
            "node_id": self._node,
            "task_id": seen.task_id,
            "status": word,
            "ok": ok,
            "result": result,
            "timestamp": iso(now),
            "lease_owner": seen.lease,
            "attempt": seen.attempt,
            "task": task_fields(seen),
        }

    async def _end_of_log(self, seen: Observation) -> str:
        try:
            chunk = await self._transport.read_log(seen.project, seen.folder, -MOST_LOG, MOST_LOG)
        except TransportLost:
            return ""
        return chunk.text
