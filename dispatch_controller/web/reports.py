"""A worker's report as an observation, so that it is judged like any other node's word."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from dispatch_controller.core import ids
from dispatch_controller.core.times import parse_iso
from dispatch_controller.fleet.observation import observe
from dispatch_controller.model import Observation, RunState, Task
from dispatch_controller.web.worker_messages import Result, TaskReport, Time

MOST_ERROR = 4000
"""Characters of an error that are kept."""


def unix(time: Time | None) -> float | None:
    """Return Unix seconds; None where there is none that can be read."""
    return time if isinstance(time, float | int) else parse_iso(time)


def result_of(report: TaskReport) -> Result:
    """Return the report's result. A text that is no result stays what the task printed."""
    given = report.result
    if given is None:
        return Result()
    if isinstance(given, Result):
        return given
    try:
        return Result.model_validate(json.loads(given), strict=True)
    except (ValueError, RecursionError, ValidationError):
        return Result(stdout=given)


def observation(
    report: TaskReport, task: Task, now: float, clock_skew: float | None
) -> Observation:
    """Return what the report says of `task`. `clock_skew` is the worker's clock minus ours."""
    result = result_of(report)
    state, reason, exit_code = _end(report, result)
    sent = unix(result.timestamp) or unix(report.timestamp)
    ended = None if sent is None else min(now, sent - (clock_skew or 0.0))
    if ended is not None and report.lease_owner is not None and task.started_at is not None:
        ended = max(ended, task.started_at)  # its lease proves the attempt, whatever its clock
    metrics = result.metrics or {}
    seen = Observation(
        node=report.node_id,
        project=task.project,
        folder=ids.folder_name(task.id),
        task_id=task.id,
        lease=report.lease_owner,
        attempt=report.attempt,
        state=state,
        alive=False,
        exit_code=exit_code,
        reason=reason,
        error=None if state is RunState.COMPLETED else _error(report, result),
        completed_at=ended,
        artifact_hash=_text(metrics.get("artifact_hash")),
        files_changed=_count(metrics.get("files_changed")),
        loc_added=_count(metrics.get("loc_added")),
        loc_removed=_count(metrics.get("loc_removed")),
    )
    return seen if report.task is None else _with_details(seen, report.task, clock_skew)


_DETAILS = (
    "exit_code", "reason", "error", "started_at", "log_file", "git_branch", "git_push_ok",
    "artifact_hash", "files_changed", "loc_added", "loc_removed", "gates", "outside", "salvage",
    "rate_limited_until", "wrapper",
)  # fmt: skip


def _with_details(seen: Observation, task: dict[str, Any], clock_skew: float | None) -> Observation:
    """Add what our own worker tells of the same end: the verdicts of its wrapper."""
    try:
        more = observe(seen.node, task, -(clock_skew or 0.0))
    except ValueError:
        return seen
    if (more.task_id, more.lease, more.state) != (seen.task_id, seen.lease, seen.state):
        return seen
    return replace(seen, **{name: getattr(more, name) for name in _DETAILS})


def _end(report: TaskReport, result: Result) -> tuple[RunState, str | None, int | None]:
    """Return (state, reason, exit code). A success must be one by every word of the report."""
    if report.status == "TIMEOUT":
        return RunState.TIMEOUT, "timeout", 124
    if report.status == "COMPLETED" and report.ok is not False and result.ok is not False:
        return RunState.COMPLETED, None, 0
    code = (result.metrics or {}).get("exit_code")
    known = isinstance(code, int) and not isinstance(code, bool) and -256 <= code <= 256
    return RunState.FAILED, None, code if known else None


def _error(report: TaskReport, result: Result) -> str:
    error: Any = result.error
    if isinstance(error, dict):
        error = error.get("message") or json.dumps(error, ensure_ascii=False)
    text = error if isinstance(error, str) and error.strip() else (result.stderr or "").strip()
    if report.status == "PARSE_ERROR":
        text = f"the worker could not read the agent's result: {text or result.stdout or ''}"
    elif report.status == "TIMEOUT":
        text = text or "ran into its time limit"
    text = text.strip() or f"the worker reported {report.status}"
    return text[-MOST_ERROR:].encode("utf-8", "replace").decode()


def _count(value: object) -> int:
    right = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40
    return int(str(value)) if right else 0


def _text(value: object) -> str | None:
    if not isinstance(value, str) or len(value) > 200:
        return None
    return value.encode("utf-8", "replace").decode()
