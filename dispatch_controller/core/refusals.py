"""What a node's refusal to start an attempt means (docs/wrapper-protocol.md, `start`)."""

from __future__ import annotations

from dataclasses import dataclass

from dispatch_controller.model import Cause


@dataclass(frozen=True, slots=True)
class RefusalRule:
    cause: Cause
    hold: float = 0.0
    """Seconds the task is held back, so that a node that keeps refusing is not asked in a storm."""
    unfit: bool = False
    """The node cannot run this executor until a probe finds that it can."""
    blames: bool = False
    """It counts against the node's reputation: what is wrong there will not mend itself."""
    fails: bool = False
    """The attempt has failed; else it never was, and the task goes back to pending."""


_RULES = {
    "alive": RefusalRule(Cause.NODE, hold=30.0),
    "void": RefusalRule(Cause.NODE),
    "superseded": RefusalRule(Cause.NODE),
    "stale": RefusalRule(Cause.NODE, hold=30.0),
    "disk_full": RefusalRule(Cause.NODE, hold=30.0),
    "executor_missing": RefusalRule(Cause.EXECUTOR, hold=5.0, unfit=True),
    "bad_order": RefusalRule(Cause.SPEC, fails=True),
    "wrapper_error": RefusalRule(Cause.NODE, hold=30.0),
    # Of HTTP workers (fleet/worker.py):
    "no_slot": RefusalRule(Cause.NODE, hold=30.0),
    "unreachable": RefusalRule(Cause.NODE, hold=30.0, blames=True),
    "unauthorized": RefusalRule(Cause.NODE, hold=60.0, blames=True),
}


def rule_for(reason: str) -> RefusalRule:
    """Return the rule; a reason of a later wrapper counts as the node's fault."""
    return _RULES.get(reason, RefusalRule(Cause.NODE, hold=30.0))
