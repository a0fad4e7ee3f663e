"""What the demo promised, checked against what the controller recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dispatch_controller.core.times import parse_iso
from dispatch_controller.demo.sample import FAILS_ONCE, HANGS, SHARED_FILE

Task = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Promise:
    text: str
    kept: bool


def verdict(tasks: Sequence[Task]) -> list[Promise]:
    """Return each promise of the demo, and whether it was kept. `tasks` come with their events."""
    by_id = {task["id"]: task for task in tasks}
    first, second = sorted(_span(by_id[task_id]) for task_id in SHARED_FILE)
    flaky, hung = by_id[FAILS_ONCE], by_id[HANGS]
    others = [task for task in tasks if task["id"] != HANGS]
    return [
        Promise(
            f"{len(others)} of {len(tasks)} tasks completed",
            all(task["status"] == "completed" for task in others),
        ),
        Promise(
            "no task started before what it depends on was completed",
            all(
                _span(by_id[parent])[1] <= _span(task)[0]
                for task in others
                for parent in task["depends_on"]
            ),
        ),
        Promise(
            f"{' and '.join(SHARED_FILE)} change one file and ran one after the other",
            first[1] <= second[0],
        ),
        Promise(f"{FAILS_ONCE} failed once and was retried", flaky["attempt"] == 2),
        Promise(
            f"{HANGS} hung, was ended and is in deadletter with its reason",
            hung["status"] == "deadletter" and "stuck" in (hung["error"] or ""),
        ),
        Promise(
            "none was started twice in one attempt",
            all(_count(task, "task_running") <= _count(task, "task_claimed") for task in tasks),
        ),
    ]


def _span(task: Task) -> tuple[float, float]:
    """Return when its last attempt was claimed and when it ended, Unix seconds."""
    starts = [e for e in task["events"] if e["event_type"] == "task_claimed"]
    ends = [e for e in task["events"] if e["event_type"] == "task_completed"]
    start = parse_iso(starts[-1]["timestamp"]) if starts else None
    end = parse_iso(ends[-1]["timestamp"]) if ends else None
    return start or 0.0, end or float("inf")


def _count(task: Task, event_type: str) -> int:
    return sum(event["event_type"] == event_type for event in task["events"])
