"""Scheduling: one pass decides and claims; the pushes it decided go out side by side.

A push is not part of the step: a slow node delays no other node and no later pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
import trio

from dispatch_controller.core.placement import Placement
from dispatch_controller.core.refusals import rule_for
from dispatch_controller.fleet.packing import CodeUnfit
from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.loops import orders
from dispatch_controller.loops.bringing import Bringer
from dispatch_controller.loops.conditions import conditions, refresh
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.orders import NoOrder
from dispatch_controller.loops.recorder import Recorder
from dispatch_controller.loops.returning import give_back
from dispatch_controller.loops.ways import follow_ways
from dispatch_controller.model import (
    Cause,
    Claim,
    Refused,
    Started,
    StartOrder,
    StartOutcome,
)
from dispatch_controller.runtime.every import every
from dispatch_controller.store import board, transitions
from dispatch_controller.store.board import PassResult
from dispatch_controller.store.reputation import Merit
from dispatch_controller.store.transitions import Ending, NewLease

log = structlog.get_logger(__name__)

NO_ORDER_HOLD = 30.0
"""Seconds; the next pass says why the task waits, where that has not mended itself."""


class Scheduling:
    """The scheduling loop (scheduling.md, One scheduling pass)."""

    def __init__(self, context: Context, recorder: Recorder) -> None:
        self._context = context
        self._recorder = recorder
        self._bringer = Bringer(context)
        self._pushes: trio.Nursery | None = None

    async def run(self) -> None:
        """Run passes until the stop; pushes under way then end within the grace."""
        context = self._context
        async with trio.open_nursery() as self._pushes:
            await every(
                self.step,
                context.stats["scheduling"],
                interval=context.settings.loops.scheduling.interval,
                wake=context.wakes.scheduling,
                stop=context.stop,
                clock=context.clock,
            )

    async def step(self, cycle: int) -> None:
        """One pass: read, decide, claim; then hand the claims to a task that pushes them."""
        context = self._context
        await follow_ways(context)
        found = await self._read_pass()
        context.knowledge.nodes = {node.name: node for node in found.nodes}
        if not found.placements:
            return
        leases = [self._lease(placement) for placement in found.placements]
        owners = {lease.lease_owner for lease in leases}
        context.knowledge.in_flight |= owners
        context.knowledge.issued |= owners
        try:
            claims = await context.store.write(
                transitions.claim, context.clock.wall(), leases, found.held
            )
        except BaseException:
            context.knowledge.in_flight -= owners
            raise
        context.knowledge.in_flight -= owners - {claim.lease_owner for claim in claims}
        if not claims:
            context.wakes.scheduling.set()  # another program was faster: look again
            return
        log.debug("claimed", loop="scheduling", cycle=cycle, tasks=len(claims))
        pushes = self._pushes
        if pushes is not None:
            pushes.start_soon(self.push_all, claims, name="push")

    async def _read_pass(self) -> PassResult:
        context = self._context
        now = context.clock.wall()
        return await context.store.read(
            board.run_pass,
            conditions(context, now),
            lambda spec_files: refresh(context, spec_files),
            now,
            reputation=context.reputation,
        )

    def _lease(self, placement: Placement) -> NewLease:
        task = placement.task
        return NewLease(
            task_id=task.id,
            node=placement.node,
            executor=placement.executor,
            lease_owner=f"{placement.node}:{self._context.token()}",
            locks=task.modifies if task.exclusive else (),
        )

    async def push_all(self, claims: Sequence[Claim]) -> None:
        """Push each claim to its node; returns when the last outcome is recorded."""
        leases = {claim.lease_owner for claim in claims}
        try:
            built = await orders.build(self._context, claims)
            async with trio.open_nursery() as nursery:
                for claim, order in zip(claims, built, strict=True):
                    nursery.start_soon(self._push, claim, order, name=f"push {claim.task.id}")
        finally:
            self._context.knowledge.in_flight -= leases

    async def _push(self, claim: Claim, order: StartOrder | NoOrder) -> None:
        context = self._context
        try:
            if isinstance(order, NoOrder):
                await self._give_back(claim, Cause.OPERATOR, order.why, NO_ORDER_HOLD)
                return
            workers = context.workers
            if workers.serves(claim.node) and workers.pulls(claim.node, context.clock.wall()):
                workers.offer(claim.lease_owner, context.clock.wall())
                return  # it fetches its claims by /v1/poll
            transport = context.fleet.transport(claim.node)
            if transport is None:
                await self._give_back(claim, Cause.NODE, f"node {claim.node} is gone")
                return
            try:
                order = await self._bringer.bring(claim, order)
            except CodeUnfit as error:
                await self._fail(claim, Cause.SPEC, str(error))
            except TransportLost as lost:  # nothing was asked to start yet
                await self._give_back(claim, Cause.NODE, str(lost))
            else:
                await self._apply(claim, await transport.start(order))
        finally:
            context.knowledge.in_flight.discard(claim.lease_owner)

    async def _apply(self, claim: Claim, outcome: StartOutcome) -> None:
        """Record how a start went. An unknown outcome is left to the reaper, which settles it."""
        context = self._context
        if isinstance(outcome, Started):
            self._recorder.take(claim.node, [outcome.observation])
            return
        if isinstance(outcome, Refused):
            seen = outcome.observation
            if outcome.reason == "alive" and seen is not None and seen.lease == claim.lease_owner:
                self._recorder.take(claim.node, [seen])
                return
            await self._refused(claim, outcome)
            return
        log.warning(
            "start not confirmed", task=claim.task.id, node=claim.node, error=outcome.message
        )
        context.knowledge.problems[claim.node] = outcome.message
        self._wrapper_failed(claim.node)
        context.wakes.reaper.set()

    def _wrapper_failed(self, node: str) -> None:
        self._context.knowledge.failed_starts.append(node)
        self._context.wakes.guardian.set()

    async def _refused(self, claim: Claim, refused: Refused) -> None:
        rule = rule_for(refused.reason)
        why = f"{claim.node} refused the start: {refused.message or refused.reason}"
        log.warning("start refused", task=claim.task.id, node=claim.node, reason=refused.reason)
        if refused.reason == "wrapper_error":
            self._wrapper_failed(claim.node)
        if refused.reason == "disk_full":
            self._context.knowledge.full[claim.node] = "out of room: its disk is full"
        if rule.unfit:
            key = (claim.node, claim.executor)
            self._context.knowledge.unfit[key] = refused.message or refused.reason
        if rule.fails:
            await self._fail(claim, rule.cause, why)
        else:
            merit = self._context.merit(Merit.TIME_OUT) if rule.blames else None
            await self._give_back(claim, rule.cause, why, rule.hold, merit)

    async def _give_back(
        self, claim: Claim, cause: Cause, why: str, hold: float = 0.0, merit: Merit | None = None
    ) -> None:
        await give_back(self._context, claim.task, cause=cause, why=why, hold=hold, merit=merit)

    async def _fail(self, claim: Claim, cause: Cause, why: str) -> None:
        context = self._context
        await context.store.write(
            transitions.finish, context.clock.wall(), claim.task.id, claim.lease_owner,
            claim.attempt, Ending(completed=False, error=why),
            {"cause": cause, "reason": "refused", "error": why},
        )  # fmt: skip
        context.wakes.reaper.set()
