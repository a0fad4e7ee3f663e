"""Whose fault a failed attempt was: one case or more for every rule of the table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_controller.core.causes import RULES, Evidence, attribute
from dispatch_controller.model import Cause

T, S, X, N, U = Cause.TASK, Cause.SPEC, Cause.EXECUTOR, Cause.NODE, Cause.UNKNOWN

# reason, exit code, error → cause, name of the rule that decides (None: none fits)
CASES: list[tuple[str | None, int | None, str | None, Cause, str | None]] = [
    ("rate_limited", 1, None, X, "rate limited"),
    ("not_logged_in", 1, None, X, "agent not logged in"),
    ("executor_missing", 127, None, X, "agent program missing"),
    ("disk_full", 1, None, N, "disk full"),
    ("out_of_memory", 137, None, N, "killed by the memory limit"),
    ("supervisor_lost", None, None, N, "supervisor lost"),
    ("node_lost", None, None, N, "supervisor lost"),
    ("wrapper_error", 1, None, N, "wrapper broken"),
    ("sync_failed", 128, "Could not resolve host: git", N, "sync over a broken network"),
    ("sync_failed", 128, "connection reset by peer", N, "sync over a broken network"),
    ("sync_failed", 128, "repository not found", T, "exit code of the agent"),
    ("bad_order", None, None, S, "spec cannot be done"),
    ("spec_gone", None, None, S, "spec cannot be done"),
    ("merge_conflict", None, None, S, "spec cannot be done"),
    ("gate:verify", 0, "2 tests failed", T, "a gate said no"),
    ("gate:conflict_markers", 0, None, T, "a gate said no"),
    ("gate:exit", 3, "429 too many requests", T, "a gate said no"),
    ("empty_run", 0, None, T, "nothing was changed"),
    ("write_set", 0, None, T, "wrote outside its files"),
    ("timeout", 124, None, T, "ran into its time limit"),
    ("exit", 1, None, T, "exit code of the agent"),
    ("exit", 1, "no space left on device", T, "exit code of the agent"),  # the agent's own words
    ("exit", 124, None, T, "exit code of the agent"),
    ("exit", 137, None, U, "killed from outside"),
    ("exit", 143, None, U, "killed from outside"),
    ("exit", 255, None, U, "killed from outside"),
    ("killed", 143, None, U, "killed from outside"),
    ("killed", None, None, U, None),
    (None, 1, "Rate limit reached", X, "says rate limited"),
    (None, 1, "HTTP 429: slow down", X, "says rate limited"),
    (None, 1, "build 14290 failed", T, "exit code of the agent"),
    (None, 1, "Invalid API key", X, "says not logged in"),
    (None, 1, "Please run `claude login`", X, "says not logged in"),
    (None, 1, "No space left on device", N, "says disk full"),
    (None, 1, "Network is unreachable", N, "says network"),
    (None, 255, "Connection closed by remote host", N, "says network"),
    (None, 255, None, U, "killed from outside"),
    (None, 137, "Killed", U, "killed from outside"),
    (None, 2, "assertion failed", T, "exit code of the agent"),
    (None, 0, None, U, None),
    (None, None, None, U, None),
    ("a reason of a later wrapper", None, None, U, None),
    ("a reason of a later wrapper", 9, None, T, "exit code of the agent"),
]


@pytest.mark.parametrize(("reason", "exit_code", "error", "cause", "rule"), CASES)
def test_the_first_rule_that_fits_decides(
    reason: str | None, exit_code: int | None, error: str | None, cause: Cause, rule: str | None
) -> None:
    evidence = Evidence(reason, exit_code, error)
    assert next((r.name for r in RULES if r.fits(evidence)), None) == rule
    assert attribute(evidence) is cause


def test_every_rule_has_a_case_and_a_name_of_its_own() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert set(names) == {case[4] for case in CASES} - {None}


def test_only_task_spec_and_unknown_use_up_a_retry() -> None:
    assert {cause for cause in Cause if cause.costs_a_retry} == {T, S, U}


@given(
    st.none() | st.text(max_size=20),
    st.none() | st.integers(-300, 300),
    st.none() | st.text(max_size=200),
)
def test_any_evidence_has_a_cause_and_never_the_operators(
    reason: str | None, exit_code: int | None, error: str | None
) -> None:
    assert attribute(Evidence(reason, exit_code, error)) is not Cause.OPERATOR
