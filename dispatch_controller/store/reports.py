"""Observations applied to the tasks they are about, a batch in one unit of work."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from dispatch_controller.core import ids
from dispatch_controller.core.paths import HeldPaths
from dispatch_controller.core.reports import (
    Beat,
    Confirm,
    EndedByUs,
    Finish,
    GiveBack,
    Known,
    Nothing,
    Stale,
    Verdict,
    judge,
)
from dispatch_controller.core.retry import pause
from dispatch_controller.model import HELD, Cause, Observation, RunState, Task
from dispatch_controller.store import events, tasks, transitions
from dispatch_controller.store.reputation import Merit, count
from dispatch_controller.store.transitions import Ending
from dispatch_controller.store.writer import Connection

log = structlog.get_logger(__name__)

_ODD = (
    sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError,
    OverflowError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of one observation."""

    seen: Observation
    task: Task | None
    """The row as it was before."""
    verdict: Verdict
    changed: bool
    """Whether the task's status changed."""


def apply(
    conn: Connection,
    now: float,
    observations: Sequence[Observation],
    endings: Mapping[str, EndedByUs],
    *,
    reputation: bool = True,
    owned_fails: Collection[str] = frozenset(),
) -> list[Recorded]:
    """Judge each observation against its row and write what follows; in their order.

    `reputation` False where the database lacks that table. `owned_fails` are the projects in which
    an attempt fails that changed a file of another live task (`write_set` in projects.json).
    """
    observations = named(conn, observations)
    rows: dict[str, Task | None] = {
        **tasks.by_ids(conn, sorted({seen.task_id for seen in observations if seen.task_id}))
    }
    recorded = []
    beats: list[tuple[str, str, float, int | None]] = []
    for seen in observations:
        if seen.outside and seen.project in owned_fails:
            seen = respect_owners(conn, seen)
        task = rows.get(seen.task_id or "")
        verdict = judge(task, seen, endings)
        try:
            with conn.apart():
                changed = _write(conn, now, task, seen, verdict, beats)
                merit = _merit(seen, verdict) if changed and reputation else None
                if merit is not None:
                    count(conn, now, seen.node, merit)
        except _ODD as error:
            # One observation that no column can hold must not keep all others from being recorded.
            log.error("not recorded", node=seen.node, task=seen.task_id, error=repr(error))
            verdict, changed = Nothing(), False
        if changed and task is not None:
            rows[task.id] = tasks.get(conn, task.id)
        recorded.append(Recorded(seen, task, verdict, changed))
    if beats:
        transitions.renew(conn, now, beats)
    return recorded


def named(conn: Connection, observations: Sequence[Observation]) -> Sequence[Observation]:
    """Return the observations, each with a task's id.

    Older wrappers tell none, nor does a status.json that cannot be read: those are known by their
    folder, which is the safe form of the id.
    """
    if all(seen.task_id for seen in observations):
        return observations
    held = {
        (task.project, ids.folder_name(task.id)): task.id for task in tasks.in_status(conn, *HELD)
    }
    return [
        seen
        if seen.task_id
        else replace(seen, task_id=held.get((seen.project, seen.folder), seen.folder))
        for seen in observations
    ]


def respect_owners(conn: Connection, seen: Observation) -> Observation:
    """Return a completed attempt as failed where it changed what belongs to another live task."""
    if seen.state is not RunState.COMPLETED:
        return seen
    held = HeldPaths()
    for task in tasks.in_status(conn, *HELD):
        if task.project == seen.project and task.id != seen.task_id:
            held.add(task.id, task.modifies)
    conflict = held.conflict(seen.outside)
    if conflict is None:
        return seen
    path, holder = conflict
    error = f"changed {path}, which belongs to {holder} and is not among its own modifies"
    return replace(seen, state=RunState.FAILED, reason="write_set", error=error)


def _merit(seen: Observation, verdict: Verdict) -> Merit | None:
    """Return what the end of an attempt says of its node; only the node's own faults count."""
    match verdict:
        case Finish(completed=True):
            return Merit.SUCCESS
        case Finish(cause=Cause.NODE):
            return Merit.TIME_OUT if seen.state is RunState.TIMEOUT else Merit.FAILURE
        case GiveBack(cause=Cause.NODE):
            return Merit.ORPHAN
        case _:
            return None


def _write(
    conn: Connection,
    now: float,
    task: Task | None,
    seen: Observation,
    verdict: Verdict,
    beats: list[tuple[str, str, float, int | None]],
) -> bool:
    if isinstance(verdict, Stale):
        if seen.state.final:
            events.add(
                conn, now, "stale_report", task_id=seen.task_id, node=seen.node,
                lease=seen.lease, attempt=seen.attempt, state=seen.state, why=verdict.why,
            )  # fmt: skip
        return False
    if task is None or isinstance(verdict, Known):
        return False
    lease = task.lease_owner or ""
    match verdict:
        case Confirm():
            return transitions.confirm(
                conn, now, task.id, lease, pid=seen.pid, log_file=seen.log_file
            )
        case Beat():
            beats.append((task.id, lease, seen.heartbeat_at or now, seen.pid))
            return False
        case GiveBack(cause, why):
            wait = pause(task.attempt)
            return transitions.give_back(
                conn, now, task.id, lease, cause=cause, why=why,
                until=now + wait if wait else None, artifact_patch=seen.salvage,
            )  # fmt: skip
        case Finish(cancelled=True, error=error):
            return transitions.cancel(conn, now, task.id, lease=lease, why=error or "cancelled")
        case Finish():
            return _finish(conn, now, task, lease, seen, verdict)
        case _:
            return False


def _finish(
    conn: Connection, now: float, task: Task, lease: str, seen: Observation, verdict: Finish
) -> bool:
    ended = seen.completed_at or now
    started = seen.started_at or task.started_at
    ending = Ending(
        completed=verdict.completed,
        error=verdict.error,
        duration_seconds=None if started is None else max(0.0, ended - started),
        completed_at=ended,
        log_file=seen.log_file,
        artifact_hash=seen.artifact_hash,
        artifact_patch=seen.salvage,
        loc_added=seen.loc_added,
        loc_removed=seen.loc_removed,
        files_changed=seen.files_changed,
    )
    details: dict[str, object] = {"gates": dict(seen.gates)}
    if not verdict.completed:
        details |= {
            "cause": verdict.cause,
            "reason": seen.reason,
            "exit_code": seen.exit_code,
            "error": verdict.error,
        }
    if seen.git_branch:
        details["git_branch"] = seen.git_branch
    if not transitions.finish(conn, now, task.id, lease, task.attempt, ending, details):
        return False
    if seen.outside:
        events.add(
            conn, now, "write_set_violation", task_id=task.id, node=seen.node, lease=lease,
            files=list(seen.outside),
        )  # fmt: skip
    return True
