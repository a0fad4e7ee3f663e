"""What an HTTP worker says it runs, in a heartbeat, a poll or its /v1/status. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dispatch_controller.core import ids
from dispatch_controller.fleet.observation import observe
from dispatch_controller.model import Observation, RunState, TaskRef


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that a worker says it runs. Times in seconds."""

    task_id: str
    lease_owner: str | None = None
    elapsed: float | None = None
    timeout: float | None = None
    task: Mapping[str, Any] | None = None
    """From newer workers: the Task of docs/wrapper-protocol.md, times by their clock."""


def listing(body: Mapping[str, Any]) -> list[RunningTask]:
    """Read the answer to GET /v1/status of a worker.

    The contract leaves its form open: a list of objects or of ids, or an object by id, under
    running_tasks, tasks or running. Raises ValueError where nothing of the kind is there, or an
    entry names no task: what is missing from a list counts as gone.
    """
    found = next((body[key] for key in ("running_tasks", "tasks", "running") if key in body), None)
    if isinstance(found, Mapping):
        found = [{**_mapping(entry), "task_id": key} for key, entry in found.items()]
    if not isinstance(found, list):
        raise ValueError("its answer does not list what runs")
    return [_entry(value) for value in found]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _entry(value: object) -> RunningTask:
    fields = {"task_id": value} if isinstance(value, str) else _mapping(value)
    task_id, lease, task = fields.get("task_id"), fields.get("lease_owner"), fields.get("task")
    if not isinstance(task_id, str) or not task_id:
        raise ValueError(f"a running task without its id: {value!r:.80}")
    return RunningTask(
        task_id,
        lease if isinstance(lease, str) and lease else None,
        _seconds(fields.get("elapsed")),
        _seconds(fields.get("timeout")),
        task if isinstance(task, Mapping) else None,
    )


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and value >= 0 else None


def find(listed: Sequence[RunningTask], ref: TaskRef) -> RunningTask | None:
    """Return the entry of an attempt: of its lease, else one of its task."""
    same = [one for one in listed if one.lease_owner == ref.lease]
    named = [one for one in listed if ids.folder_name(one.task_id) == ref.folder]
    return next(iter(same + named), None)


def observe_listed(node: str, listed: RunningTask, at: float, offset: float) -> Observation:
    """Return what an entry says. A worker in the field says that the task lives, and no project.

    `at`: when it said so, by our clock; `offset`: our clock minus the worker's.
    """
    if listed.task is not None:
        try:
            seen = observe(node, listed.task, offset)
        except ValueError:
            pass  # then what every worker says has to do
        else:
            if (seen.task_id, seen.lease) == (listed.task_id, listed.lease_owner):
                return seen
    return Observation(
        node=node,
        project="",
        folder=ids.folder_name(listed.task_id),
        task_id=listed.task_id,
        lease=listed.lease_owner,
        attempt=None,
        state=RunState.RUNNING,
        alive=True,
        heartbeat_at=at,
    )


def named(seen: Observation, ref: TaskRef) -> Observation:
    """Return what was seen, as of the attempt `ref`, where it says no project itself."""
    return seen if seen.project else replace(seen, project=ref.project, folder=ref.folder)
