"""What nodes say of tasks, in the words of this wrapper and of older ones."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_controller.fleet.observation import instant, observe
from dispatch_controller.model import RunState

AT = datetime(2026, 1, 18, 9, 30, tzinfo=UTC).timestamp()


def a_task(status: object = None, **fields: object) -> dict[str, Any]:
    return {"project": "p", "folder": "f", "alive": False, "status": status, **fields}


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-18T09:30:00Z",
        "2026-01-18T09:30:00+00:00",
        "2026-01-18T10:30:00.000000+01:00",
        "2026-01-18 09:30:00+00:00",
        f"{AT:.0f}",
    ],
)
def test_times_with_an_offset_in_every_form(text: str) -> None:
    assert instant(text) == AT


def test_time_without_an_offset_is_local() -> None:
    assert instant("2026-01-18T09:30:00") == datetime(2026, 1, 18, 9, 30).timestamp()  # noqa: DTZ001


@pytest.mark.parametrize("value", ["", "soon", None, True, [], "nan", "inf", float("inf")])
def test_what_is_no_time_is_none(value: object) -> None:
    assert instant(value) is None


def test_times_are_moved_to_our_clock() -> None:
    status = {"status": "running", "started_at": "2026-01-18T09:30:00Z"}
    seen = observe("n", a_task(status, heartbeat_at=AT, log_at=AT, files_at=AT), offset=-3600.0)
    times = (seen.started_at, seen.heartbeat_at, seen.log_at, seen.files_at)
    assert times == (AT - 3600,) * 4


def test_old_wrapper_without_lease_and_with_numbers_as_text() -> None:
    line = (
        '{"status":"completed","pid":"812","started_at":"2026-01-18T09:00:00",'
        '"completed_at":"2026-01-18T09:30:00","node":"mac-2","exit_code":"0","git_mode":"true",'
        '"git_branch":"task/p-f-mac-2","git_push_ok":"true","files_changed":"3","attempts":1}'
    )
    seen = observe("n", a_task(json.loads(line)), offset=0.0)
    assert seen.state is RunState.COMPLETED
    assert (seen.lease, seen.attempt, seen.pid, seen.exit_code) == (None, None, 812, 0)
    assert (seen.git_branch, seen.git_push_ok, seen.files_changed) == ("task/p-f-mac-2", True, 3)
    assert seen.completed_at is not None
    assert seen.started_at is not None
    assert seen.completed_at - seen.started_at == 1800


def test_minimal_old_status() -> None:
    seen = observe("n", a_task({"status": "failed"}), offset=0.0)
    assert (seen.state, seen.exit_code, seen.error) == (RunState.FAILED, None, None)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (None, RunState.PENDING),
        ({"status": "RUNNING"}, RunState.RUNNING),
        ({"status": "timeout"}, RunState.TIMEOUT),
        ({"status": "done?"}, RunState.UNKNOWN),
        ({"status": 7}, RunState.UNKNOWN),
        ({}, RunState.UNKNOWN),
        ("running", RunState.UNKNOWN),
    ],
)
def test_state_is_read_and_never_guessed(status: object, state: RunState) -> None:
    assert observe("n", a_task(status), offset=0.0).state is state


def test_broken_status_is_unknown_not_failed() -> None:
    assert observe("n", a_task(None, broken=True), offset=0.0).state is RunState.UNKNOWN


def test_gates_outside_and_salvage() -> None:
    status = {
        "status": "failed",
        "reason": "gate:verify",
        "gates": {"exit": "passed", "verify": "failed"},
        "outside": ["x", "y"],
        "salvage": {"path": "salvage/a.patch", "ref": None},
    }
    seen = observe("n", a_task(status), offset=0.0)
    assert seen.gates == {"exit": "passed", "verify": "failed"}
    assert (seen.outside, seen.salvage) == (("x", "y"), "salvage/a.patch")


@pytest.mark.parametrize("task", [None, [], "x", {}, {"project": "p"}, {"project": 1, "folder": 2}])
def test_task_that_cannot_be_named_spoils_the_answer(task: object) -> None:
    with pytest.raises(ValueError, match="task"):
        observe("n", task, offset=0.0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
STATUS_FIELDS = [
    *("status", "pid", "started_at", "completed_at", "exit_code", "gates", "outside", "salvage"),
    *("git_push_ok", "files_changed", "rate_limited_until", "lease", "attempt", "error", "reason"),
]
TASK_FIELDS = [
    *("task_id", "lease", "attempt", "alive", "broken", "cpu", "log_at", "log_size", "files_at"),
    "heartbeat_at",
]


@given(
    status=st.dictionaries(st.sampled_from(STATUS_FIELDS), JSON) | JSON,
    fields=st.dictionaries(st.sampled_from(TASK_FIELDS), JSON),
)
def test_no_rubbish_in_a_status_raises(status: object, fields: dict[str, Any]) -> None:
    seen = observe("n", {"project": "p", "folder": "f", "status": status, **fields}, offset=1.5)
    assert seen.folder == "f"
