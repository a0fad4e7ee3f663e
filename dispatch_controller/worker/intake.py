"""Starts what the controller hands out, fetched or pushed, by the wrapper of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
import trio

from dispatch_controller.fleet.serve import ServeTransport
from dispatch_controller.model import (
    Observation,
    Refused,
    RunState,
    Started,
    StartOutcome,
    Unknown,
)
from dispatch_controller.runtime.clock import Clock
from dispatch_controller.worker.ledger import Ledger

log = structlog.get_logger(__name__)

FRESH = 30.0
"""Seconds from asking for a task to its start, at the most: the controller counts on a fetched
task never starting later than fleet/worker.py, SETTLED. It is handed out again."""


class BadTask(ValueError):
    """A task that is not in the form that this worker takes; the text says why."""


class Intake:
    def __init__(self, ledger: Ledger, transport: ServeTransport, clock: Clock) -> None:
        self._ledger = ledger
        self._transport = transport
        self._clock = clock

    async def start(self, body: Mapping[str, Any], fresh_until: float) -> StartOutcome:
        """Start one task of /v1/execute or /v1/poll. `fresh_until`: Unix seconds. Raises BadTask.

        The wrapper never starts a lease twice, so the same task may come any number of times.
        """
        order = body.get("order")
        if not isinstance(order, dict):
            raise BadTask("it has no order: this worker serves dispatch-controller alone")
        lease, limit = order.get("lease"), order.get("timeout")
        if not isinstance(lease, str) or not lease:
            raise BadTask("its order has no lease")
        known = self._ledger.get(lease)
        if known is not None:
            return Started(known)
        if self._ledger.knows(lease):
            return Unknown("it is being started")
        if not self._ledger.free:
            return Refused("no_slot", f"all {self._ledger.slots} slots are taken")
        self._ledger.begin(lease, limit if isinstance(limit, int | float) else None)
        try:
            return await self._start(order, fresh_until)
        finally:
            self._ledger.begun(lease)

    async def _start(self, order: Mapping[str, Any], fresh_until: float) -> StartOutcome:
        outcome: StartOutcome = Unknown("it came too late to be started")
        # By both clocks: Trio's stands still while a machine sleeps, the other one may be set.
        left = fresh_until - self._clock.wall()
        if 0 < left <= FRESH:
            with trio.move_on_after(left):
                outcome = await self._transport.start_fields(order)
        if isinstance(outcome, Started):
            self._ledger.take([outcome.observation])
        elif isinstance(outcome, Refused) and _same(outcome, order):
            self._ledger.take([outcome.observation] if outcome.observation else [])
        log.info(
            "start",
            task=order.get("task_id"),
            lease=order.get("lease"),
            outcome=type(outcome).__name__,
            message=getattr(outcome, "message", None),
        )
        return outcome


def _same(refused: Refused, order: Mapping[str, Any]) -> bool:
    """Whether the start was refused since this very lease runs already."""
    return refused.observation is not None and refused.observation.lease == order.get("lease")


def as_end(node: str, order: Mapping[str, Any], refused: Refused, now: float) -> Observation:
    """Return a refused start as the end of an attempt that never began."""
    return Observation(
        node=node,
        project=str(order.get("project")),
        folder=str(order.get("folder")),
        task_id=str(order.get("task_id")),
        lease=str(order.get("lease")),
        attempt=order.get("attempt"),
        state=RunState.FAILED,
        alive=False,
        reason=refused.reason,
        error=f"the worker of {node} refused the start: {refused.message or refused.reason}",
        completed_at=now,
    )
