"""A task's history, put together from its events."""

from __future__ import annotations

from dispatch_controller.store.events import Event
from dispatch_controller.web.attempts import attempts


def told(*events: tuple[str, dict[str, object]], node: str | None = "mini") -> list[Event]:
    return [
        Event(n, f"2026-11-24T08:00:{n:02d}+00:00", "t", kind, node, details)
        for n, (kind, details) in enumerate(events)
    ]


def test_an_attempt_goes_from_claim_to_its_gates() -> None:
    (one,) = attempts(
        told(
            ("task_registered", {}),
            ("task_claimed", {"lease": "mini:1", "attempt": 1, "executor": "claude"}),
            ("task_running", {"lease": "mini:1"}),
            ("task_failed", {"lease": "mini:1", "attempt": 1, "cause": "task", "exit_code": 1,
                             "error": "verify said no", "gates": {"exit": "passed"}}),
            ("task_retry", {"why": "retry 1 of 2"}),
        )
    )  # fmt: skip
    assert (one.number, one.node, one.executor, one.outcome) == (1, "mini", "claude", "failed")
    assert (one.cause, one.exit_code, one.error) == ("task", 1, "verify said no")
    assert one.gates == {"exit": "passed"}
    assert one.seconds == 1.0
    assert one.notes == ["to be tried again: retry 1 of 2"]


def test_the_newest_comes_first_and_late_news_belong_to_their_lease() -> None:
    found = attempts(
        told(
            ("task_claimed", {"lease": "mini:1", "attempt": 1}),
            ("task_claimed", {"lease": "mini:2", "attempt": 2}),
            ("attempt_refunded", {"lease": "mini:1", "cause": "node", "why": "gone"}),
            ("task_running", {"lease": "mini:2"}),
        )
    )
    assert [(one.number, one.outcome) for one in found] == [(2, "running"), (1, "returned")]
    assert found[1].cause == "node"
    assert found[1].notes == ["cost no retry"]


def test_a_cancelled_attempt_ends_with_the_operators_word() -> None:
    (one,) = attempts(
        told(
            ("task_claimed", {"lease": "mini:1", "attempt": 1}),
            ("task_deadletter", {"lease": "mini:1", "cause": "operator", "why": "cancelled"}),
        )
    )
    assert (one.outcome, one.cause) == ("deadletter", "operator")


def test_events_of_old_programs_are_read_leniently() -> None:
    (one,) = attempts(
        told(
            ("task_completed", {"gates": "all good", "attempt": "two", "value": []}),
            ("write_set_violation", {"files": 7}),
            ("something_else", {}),
        )
    )
    assert one.outcome == "completed"
    assert one.gates == {}
    assert attempts(told(("task_retry", {"why": "x"}))) == []
    assert attempts(told(("task_running", {"lease": "unknown:1"})))[0].outcome == "running"
