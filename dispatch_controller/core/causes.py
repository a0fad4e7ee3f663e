"""Whose fault a failed attempt was: one table of rules, from evidence (scheduling.md).

The first rule that fits decides; what fits none is UNKNOWN.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from dispatch_controller.model import Cause


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an attempt left behind: `reason` as in docs/wrapper-protocol.md, status.json.

    Where the controller had the process ended, the cause is that of the ending (reports.py).
    """

    reason: str | None
    exit_code: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    fits: Callable[[Evidence], bool]
    cause: Cause


def _reason(*reasons: str | None) -> Callable[[Evidence], bool]:
    return lambda evidence: evidence.reason in reasons


def _says(pattern: str) -> Callable[[Evidence], bool]:
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda evidence: bool(evidence.error and compiled.search(evidence.error))


def _all(*conditions: Callable[[Evidence], bool]) -> Callable[[Evidence], bool]:
    return lambda evidence: all(condition(evidence) for condition in conditions)


def _gate(evidence: Evidence) -> bool:
    return bool(evidence.reason and evidence.reason.startswith("gate:"))


def _exit(*codes: int) -> Callable[[Evidence], bool]:
    return lambda evidence: evidence.exit_code in codes


_RATE = r"rate.?limit|too many requests|\b429\b|quota exceeded"
_LOGIN = r"not logged in|invalid api key|authentication[_ ]error|please run .*login"
_NETWORK = r"could not resolve host|connection (refused|reset|timed out|closed)|network is unreach"
_DISK = r"no space left on device|disk quota exceeded|disk is .*full"

RULES: tuple[Rule, ...] = (
    Rule("rate limited", _reason("rate_limited"), Cause.EXECUTOR),
    Rule("agent not logged in", _reason("not_logged_in"), Cause.EXECUTOR),
    Rule("agent program missing", _reason("executor_missing"), Cause.EXECUTOR),
    Rule("disk full", _reason("disk_full"), Cause.NODE),
    Rule("killed by the memory limit", _reason("out_of_memory"), Cause.NODE),
    Rule("supervisor lost", _reason("supervisor_lost", "node_lost"), Cause.NODE),
    Rule("wrapper broken", _reason("wrapper_error"), Cause.NODE),
    Rule("sync over a broken network", _all(_reason("sync_failed"), _says(_NETWORK)), Cause.NODE),
    Rule("spec cannot be done", _reason("bad_order", "spec_gone", "merge_conflict"), Cause.SPEC),
    Rule("a gate said no", _gate, Cause.TASK),
    Rule("nothing was changed", _reason("empty_run"), Cause.TASK),
    Rule("wrote outside its files", _reason("write_set"), Cause.TASK),
    Rule("ran into its time limit", _reason("timeout"), Cause.TASK),
    # From here on: older workers, which report an exit code and a text, no reason.
    Rule("says rate limited", _all(_reason(None), _says(_RATE)), Cause.EXECUTOR),
    Rule("says not logged in", _all(_reason(None), _says(_LOGIN)), Cause.EXECUTOR),
    Rule("says disk full", _all(_reason(None), _says(_DISK)), Cause.NODE),
    Rule("says network", _all(_reason(None), _says(_NETWORK)), Cause.NODE),
    Rule("killed from outside", _exit(137, 143, 255), Cause.UNKNOWN),
    Rule("exit code of the agent", lambda e: e.exit_code not in (None, 0), Cause.TASK),
)


def attribute(evidence: Evidence) -> Cause:
    """Return the cause by the first rule that fits."""
    return next((rule.cause for rule in RULES if rule.fits(evidence)), Cause.UNKNOWN)
