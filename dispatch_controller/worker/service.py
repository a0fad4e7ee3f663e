"""The worker's parts at work: it tells what it runs, takes tasks in, ends them when told to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import structlog
import trio

from dispatch_controller.core.times import iso
from dispatch_controller.fleet.http import Answer
from dispatch_controller.fleet.serve import ServeTransport
from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.model import Refused, TaskRef
from dispatch_controller.runtime.clock import Clock
from dispatch_controller.runtime.every import Wake
from dispatch_controller.worker.intake import FRESH, BadTask, Intake, as_end
from dispatch_controller.worker.ledger import Ledger
from dispatch_controller.worker.link import Link
from dispatch_controller.worker.reporter import Reporter

log = structlog.get_logger(__name__)

POLL = 2.0
"""Seconds between two polls, while nothing starts or ends."""
BEAT = 10.0
COLLECT = 30.0
"""Seconds between two looks at everything on the disk: `serve` tells changes, this is the truth."""
GRACE = 30.0
"""Seconds between TERM and KILL of a task that the controller names in `kill`."""
TOLD_AS_ENDS = ("bad_order", "executor_missing", "disk_full", "wrapper_error")
"""Refusals that a worker which polls reports; after the others the task is fetched again."""


class Service:
    """`url`: where this worker listens; None for one that polls."""

    def __init__(
        self,
        node: str,
        ledger: Ledger,
        link: Link,
        intake: Intake,
        reporter: Reporter,
        transport: ServeTransport,
        clock: Clock,
    ) -> None:
        self.url: str | None = None
        self.wake_beat, self.wake_poll = Wake(), Wake()
        self._node = node
        self._ledger = ledger
        self._link = link
        self._intake = intake
        self._reporter = reporter
        self._transport = transport
        self._clock = clock
        self.looked = trio.Event()
        """Set once it is known what runs here: nothing is told before that, since what a worker
        does not list counts as gone."""

    # --- steps of the loops

    async def beat(self, cycle: int) -> None:
        """Send a heartbeat; end what the controller does not want."""
        if not self.looked.is_set():
            return
        message = self._message()
        if self.url is not None:
            message["worker_url"] = self.url
        answer = await self._link.call("heartbeat", message)
        if answer is not None and answer.status == 200:
            await self._end(answer, [task["lease_owner"] for task in message["running_tasks"]])

    async def poll(self, starts: trio.Nursery) -> None:
        """Ask for tasks, and start them side by side in `starts`."""
        if not self.looked.is_set():
            return
        asked = self._clock.wall()
        answer = await self._link.call("poll", self._message())
        tasks = None if answer is None else answer.body.get("tasks")
        if not isinstance(tasks, list):
            return
        for task in tasks:
            if isinstance(task, dict):
                starts.start_soon(self._start_fetched, task, asked, name="start")

    async def collect(self, cycle: int) -> None:
        """Look at everything that is on the disk."""
        before = self._ledger.leases()
        try:
            collection = await self._transport.collect()
            settled = self._ledger.take_all(collection.tasks, before)
            if settled:
                await self._transport.ack(settled)
        except TransportLost as lost:
            log.warning("the wrapper's serve gives no answer", error=lost.message)
            return
        if not self.looked.is_set():
            self.looked.set()
            self.wake_beat.set()
            self.wake_poll.set()

    async def announce(self) -> None:
        """Tell the controller at once of each start and end, until cancelled."""
        while True:
            await self._ledger.changed.wait()
            self._ledger.changed.clear()
            (self.wake_poll if self.url is None else self.wake_beat).set()

    def _message(self) -> dict[str, Any]:
        now = self._clock.wall()
        load = os.getloadavg()[0]
        return {
            "node_id": self._node,
            "slots_free": self._ledger.free,
            "max_slots": self._ledger.slots,
            "cpu": round(100 * load / (os.cpu_count() or 1), 1),
            "running_tasks": self._ledger.listing(now),
            "timestamp": iso(now),
        }

    async def _start_fetched(self, task: Mapping[str, Any], asked: float) -> None:
        try:
            outcome = await self._intake.start(task, asked + FRESH)
        except BadTask as error:
            log.error("a task that cannot be taken", task=task.get("task_id"), reason=str(error))
            return
        if isinstance(outcome, Refused) and outcome.reason in TOLD_AS_ENDS:
            end = as_end(self._node, task["order"], outcome, self._clock.wall())
            await self._reporter.refuse(end)

    async def _end(self, answer: Answer, leases: list[str]) -> None:
        """End the tasks named in `kill`, of those that this very heartbeat listed."""
        named = answer.body.get("kill")
        if not isinstance(named, list):
            return
        for lease in leases:
            seen = self._ledger.get(lease)
            if seen is None or seen.task_id not in named or seen.state.final:
                continue
            log.warning("ended, as the controller asks", task=seen.task_id, lease=lease)
            try:
                await self._transport.kill(TaskRef(seen.project, seen.folder, lease), GRACE)
            except TransportLost as lost:
                log.warning("not ended yet", task=seen.task_id, error=lost.message)
