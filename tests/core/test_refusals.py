"""What each refusal of a node means (docs/wrapper-protocol.md, `start`)."""

from __future__ import annotations

import pytest

from dispatch_controller.core.refusals import RefusalRule, rule_for
from dispatch_controller.model import Cause


@pytest.mark.parametrize(
    ("reason", "rule"),
    [
        ("alive", RefusalRule(Cause.NODE, hold=30.0)),
        ("void", RefusalRule(Cause.NODE)),
        ("stale", RefusalRule(Cause.NODE, hold=30.0)),
        ("superseded", RefusalRule(Cause.NODE)),
        ("disk_full", RefusalRule(Cause.NODE, hold=30.0)),
        ("executor_missing", RefusalRule(Cause.EXECUTOR, hold=5.0, unfit=True)),
        ("bad_order", RefusalRule(Cause.SPEC, fails=True)),
        ("wrapper_error", RefusalRule(Cause.NODE, hold=30.0)),
        ("a reason of a later wrapper", RefusalRule(Cause.NODE, hold=30.0)),
        ("", RefusalRule(Cause.NODE, hold=30.0)),
    ],
)
def test_every_reason_has_its_rule(reason: str, rule: RefusalRule) -> None:
    assert rule_for(reason) == rule


@pytest.mark.parametrize(
    "reason",
    ["alive", "void", "stale", "superseded", "disk_full", "executor_missing", "wrapper_error"],
)
def test_a_refusal_costs_the_task_no_retry(reason: str) -> None:
    rule = rule_for(reason)
    assert not rule.cause.costs_a_retry
    assert not rule.fails
