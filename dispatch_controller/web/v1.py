"""/v1: what workers in the field call. Paths, methods and field names do not change (http.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from quart import Blueprint, Response
from quart_schema import tag_blueprint

from dispatch_controller.core import ids
from dispatch_controller.core.reports import Finish, Known, Stale
from dispatch_controller.core.times import iso
from dispatch_controller.fleet.listing import RunningTask, observe_listed
from dispatch_controller.fleet.worker_payload import execute_fields
from dispatch_controller.loops import orders
from dispatch_controller.loops.orders import NoOrder
from dispatch_controller.loops.workers import HEARD_WITHIN, Message, Worker
from dispatch_controller.model import Observation, RunState, Task
from dispatch_controller.store import nodes, tasks, views
from dispatch_controller.store.reports import Recorded
from dispatch_controller.web.answers import answer, refuse
from dispatch_controller.web.documented import of_workers
from dispatch_controller.web.parts import Parts, caller, parts
from dispatch_controller.web.reading import body
from dispatch_controller.web.reports import observation, unix
from dispatch_controller.web.status import status_body
from dispatch_controller.web.worker_addresses import bound_to_address, check_url
from dispatch_controller.web.worker_messages import (
    Beaten,
    Heartbeat,
    Poll,
    Polled,
    Reported,
    StatusBody,
    TaskReport,
    Workers,
)

blueprint = Blueprint("v1", __name__, url_prefix="/v1")
tag_blueprint(blueprint, ["workers"])


@blueprint.post("/heartbeat")
@of_workers(Beaten, Heartbeat)
async def heartbeat() -> Response:
    """Tell that a worker lives and what it runs; its leases are renewed."""
    said = await body(Heartbeat)
    here = parts()
    worker = await _hear(here, said, poll=False)
    kill = await _renew(here, worker) if said.running_tasks else []
    return answer(
        {"status": "OK", "node_id": said.node_id, "kill": kill, "timestamp": iso(here.now)}
    )


@blueprint.post("/poll")
@of_workers(Polled, Poll)
async def poll() -> Response:
    """Fetch the tasks claimed for a node, until it confirms them by heartbeat or report."""
    said = await body(Poll)
    here = parts()
    worker = await _hear(here, said, poll=True)
    if said.running_tasks:
        await _renew(here, worker)
    found = await _claimed(here, said.node_id, said.slots_free)
    return answer({"status": "OK", "tasks": found})


@blueprint.post("/task_report")
@of_workers(Reported, TaskReport, 404, 503)
async def task_report() -> Response:
    """Report how a task ended. What does not fit its lease is answered and changes nothing."""
    report = await body(TaskReport)
    here = parts()
    await bound_to_address(here.context, report.node_id, caller())
    task = await here.context.store.read(tasks.get, report.task_id)
    if task is None:
        refuse(404, f"there is no task {ids.shown(report.task_id)}")
    known = here.context.workers.get(report.node_id)
    skew = None if known is None else known.clock_skew
    recorded = await here.recorder.record_one(observation(report, task, here.now, skew))
    if recorded is None:
        refuse(503, f"the work of {ids.shown(task.id)} cannot be merged now: report it again")
    accepted, reason = _accepted(recorded)
    return answer({"status": "OK", "task_id": task.id, "accepted": accepted, "reason": reason})


@blueprint.get("/status")
@of_workers(StatusBody)
async def status() -> Response:
    """Tell how the controller, its loops and its nodes are."""
    return answer(await status_body(parts()))


@blueprint.get("/workers")
@of_workers(Workers)
async def workers() -> Response:
    """List the HTTP workers that have been heard of."""
    here = parts()
    registry = here.context.workers
    return answer(
        {
            "status": "OK",
            "workers": [
                {
                    "node_id": worker.node_id,
                    "worker_url": registry.shown_url(worker),
                    "slots_free": worker.slots_free,
                    "max_slots": worker.max_slots,
                    "cpu": worker.cpu,
                    "mem": worker.mem,
                    "running_tasks": [
                        {name: getattr(task, name) for name in _SHOWN}
                        for task in worker.running_tasks
                    ],
                    "last_seen": iso(worker.last_seen),
                    "alive": here.now - worker.last_seen <= HEARD_WITHIN,
                }
                for worker in registry.all()
            ],
        }
    )


async def _hear(here: Parts, said: Heartbeat, *, poll: bool) -> Worker:
    """Take a worker's message in: registry, last_seen, and a wake when the node is back."""
    await bound_to_address(here.context, said.node_id, caller())
    context, now = here.context, here.now
    url = said.worker_url
    if url is not None:
        check_url(url, caller())
    running = said.running_tasks
    worker = context.workers.heard(
        Message(
            node_id=said.node_id,
            address=caller().address,
            at=now,
            worker_url=url,
            slots_free=said.slots_free,
            max_slots=said.max_slots,
            cpu=said.cpu,
            mem=said.mem,
            running_tasks=None
            if running is None
            else [
                RunningTask(t.task_id, t.lease_owner, t.elapsed, t.timeout, t.task) for t in running
            ],
            sent_at=unix(said.timestamp),
            poll=poll,
        )
    )
    if said.node_id in context.knowledge.nodes:
        if context.knowledge.answered(said.node_id, now):
            context.wakes.scheduling.set()
        await context.store.write(nodes.seen, [(said.node_id, now)])
    return worker


async def _renew(here: Parts, worker: Worker) -> list[str]:
    """Renew the leases of what a worker runs, and confirm claims; return what it should end."""
    context = here.context
    listed = worker.running_tasks
    wanted = sorted({running.task_id for running in listed})
    rows = await context.store.read(tasks.by_ids, wanted)
    seen = [
        _alive(worker, running, rows[running.task_id])
        for running in listed
        if running.task_id in rows
    ]
    recorded = await here.recorder.record(seen) if seen else []
    kill = set(wanted) - set(rows)
    kill |= {one.seen.task_id or "" for one in recorded if _unwanted(here, one)}
    return sorted(kill)


def _alive(worker: Worker, running: RunningTask, task: Task) -> Observation:
    """Return what a worker's listing says: that the task lives, and from newer ones how."""
    seen = observe_listed(worker.node_id, running, worker.last_seen, -(worker.clock_skew or 0.0))
    return replace(
        seen,
        project=task.project,
        folder=ids.folder_name(task.id),
        attempt=None,
        state=RunState.RUNNING,
        alive=True,
        heartbeat_at=worker.last_seen,
    )


def _unwanted(here: Parts, one: Recorded) -> bool:
    """Whether the worker should end it: another lease, not held there, or to be ended."""
    lease = None if one.task is None else one.task.lease_owner
    elsewhere = one.task is not None and one.task.node != one.seen.node
    return isinstance(one.verdict, Stale) or elsewhere or lease in here.context.knowledge.endings


async def _claimed(here: Parts, node: str, most: int | None) -> list[dict[str, Any]]:
    context = here.context
    row = context.knowledge.nodes.get(node)
    if row is None or not context.workers.serves(node):
        return []
    claims = [
        claim
        for claim in await context.store.read(views.claims_of, node)
        if claim.lease_owner not in context.knowledge.in_flight
        and claim.lease_owner not in context.knowledge.endings
        and not context.workers.withdrawn(claim.lease_owner)
    ][:most]
    built: Sequence[Any] = await orders.build(context, claims) if claims else []
    ready = [order for order in built if not isinstance(order, NoOrder)]
    # Once more: building took time, in which a claim may have been taken back.
    return [
        execute_fields(order, row.work_dir)
        for order in ready
        if context.workers.hand(order.lease, here.now)
    ]


_SHOWN = ("task_id", "lease_owner", "elapsed", "timeout")


def _accepted(one: Recorded) -> tuple[bool, str]:
    if one.changed and isinstance(one.verdict, Finish):
        return True, "completed" if one.verdict.completed else "failed"
    if one.changed:
        return True, "returned"
    if isinstance(one.verdict, Known):
        return False, "this attempt's end is recorded already"
    if isinstance(one.verdict, Stale):
        return False, one.verdict.why
    return False, "the task has moved on"
