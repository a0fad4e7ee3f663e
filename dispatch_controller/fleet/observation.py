"""From what a node says of a task to an `Observation`. Pure; lenient towards old wrappers.

Old wrappers leave fields out, write numbers as text and times without an offset (taken as local
time). What cannot be understood in a status makes its state UNKNOWN, never `failed`; a task that
cannot even be named makes the whole answer unusable (ValueError), since a task that is missing
from an answer counts as gone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dispatch_controller.model import Observation, RunState

_STATES = {state.value: state for state in RunState}


def observe(node: str, task: object, offset: float) -> Observation:
    """Read one Task of the wrapper's protocol.

    `offset`: our clock minus the node's, seconds; it is added to every time. Raises ValueError.
    """
    if not isinstance(task, Mapping):
        raise ValueError(f"a task is not an object: {task!r:.80}")
    project, folder = task.get("project"), task.get("folder")
    if not isinstance(project, str) or not isinstance(folder, str):
        raise ValueError(f"a task without project and folder: {task!r:.80}")
    status = task.get("status")
    fields: Mapping[str, Any] = status if isinstance(status, Mapping) else {}

    def moment(value: object) -> float | None:
        seconds = instant(value)
        return None if seconds is None else seconds + offset

    return Observation(
        node=node,
        project=project,
        folder=folder,
        task_id=_text(task.get("task_id")) or _text(fields.get("task_id")),
        lease=_text(task.get("lease")) or _text(fields.get("lease")),
        attempt=_first(_whole(task.get("attempt")), _whole(fields.get("attempt"))),
        state=_state(status, broken=task.get("broken") is True),
        alive=task.get("alive") is True,
        pid=_first(_whole(task.get("pgid")), _whole(fields.get("pid"))),
        exit_code=_whole(fields.get("exit_code")),
        reason=_text(fields.get("reason")),
        error=_text(fields.get("error")),
        started_at=moment(fields.get("started_at")),
        completed_at=moment(fields.get("completed_at")),
        heartbeat_at=moment(task.get("heartbeat_at")),
        cpu_seconds=_number(task.get("cpu")),
        log_at=moment(task.get("log_at")),
        log_size=_whole(task.get("log_size")),
        files_at=moment(task.get("files_at")),
        waiting_input=task.get("waiting_input") is True,
        log_file=_text(task.get("log_file")),
        git_branch=_text(fields.get("git_branch")),
        git_push_ok=_flag(fields.get("git_push_ok")),
        artifact_hash=_text(fields.get("artifact_hash")),
        files_changed=_whole(fields.get("files_changed")) or 0,
        loc_added=_whole(fields.get("loc_added")) or 0,
        loc_removed=_whole(fields.get("loc_removed")) or 0,
        gates=_texts(fields.get("gates")),
        outside=_paths(fields.get("outside")),
        salvage=_salvage(fields.get("salvage")),
        rate_limited_until=moment(fields.get("rate_limited_until")),
        wrapper=_text(fields.get("wrapper")),
    )


def task_fields(seen: Observation) -> dict[str, Any]:
    """Return the Task that `observe` reads (its inverse, with no offset between the clocks)."""
    status = {
        "status": seen.state.value,
        **{name: getattr(seen, name) for name in _STATUS},
        "outside": list(seen.outside),
        "gates": dict(seen.gates),
    }
    return {
        **{name: getattr(seen, name) for name in _TASK},
        "cpu": seen.cpu_seconds,
        "pgid": seen.pid,
        "broken": seen.state is RunState.UNKNOWN,
        "status": {name: value for name, value in status.items() if value not in (None, [], {})},
    }


_STATUS = (
    "exit_code", "reason", "error", "started_at", "completed_at", "git_branch", "git_push_ok",
    "artifact_hash", "files_changed", "loc_added", "loc_removed", "salvage",
    "rate_limited_until", "wrapper",
)  # fmt: skip
_TASK = (
    "project", "folder", "task_id", "lease", "attempt", "alive", "heartbeat_at", "log_at",
    "log_size", "files_at", "waiting_input", "log_file",
)  # fmt: skip


def instant(value: object) -> float | None:
    """Return Unix seconds for a number or an ISO 8601 text; None for anything else."""
    number = _number(value)
    if number is not None:
        return number
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(value.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _state(status: object, *, broken: bool) -> RunState:
    if broken:
        return RunState.UNKNOWN
    if status is None:
        return RunState.PENDING
    word = status.get("status") if isinstance(status, Mapping) else None
    if not isinstance(word, str):
        return RunState.UNKNOWN
    return _STATES.get(word.strip().lower(), RunState.UNKNOWN)


def _first(one: int | None, other: int | None) -> int | None:
    return other if one is None else one


def _text(value: object) -> str | None:
    if value is None or value == "" or isinstance(value, bool):
        return None
    return value if isinstance(value, str) else str(value)


def _number(value: object) -> float | None:
    """A finite number, or one as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: object) -> int | None:
    """A whole number that a column of SQLite can hold."""
    number = _number(value)
    return None if number is None or abs(number) >= 2**63 else int(number)


def _flag(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return None


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {}
    return {str(key): str(item) for key, item in value.items()}


def _paths(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        return ()
    return tuple(str(item) for item in value)


def _salvage(value: object) -> str | None:
    """A branch or a path; the wrapper says it as text or as {"path", "ref"}."""
    if isinstance(value, Mapping):
        return _text(value.get("ref")) or _text(value.get("path"))
    return _text(value)
