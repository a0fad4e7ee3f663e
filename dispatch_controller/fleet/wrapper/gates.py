"""The gates: an agent's "done" is not believed. The first that fails decides."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatch_controller.fleet.wrapper.measure import Changes
    from dispatch_controller.fleet.wrapper.order import Order

_MARKERS = re.compile(r"^<{7} .*?^={7}$.*?^>{7} ", re.MULTILINE | re.DOTALL)
_TODO = re.compile(r"\b(TODO|FIXME)\b")
NEEDS_CHANGES = ("changed", "conflict_markers", "no_todo")


class Verdict:
    """`gates` as status.json has it; `reason` and `error` of the first that failed, else None."""

    def __init__(self, order: Order) -> None:
        self.gates = dict.fromkeys(order.gates, "not_run")
        self.reason: str | None = None
        self.error: str | None = None

    def fail(self, gate: str, reason: str, error: str) -> None:
        self.gates[gate] = "failed"
        self.reason, self.error = reason, error


def judge(
    order: Order, code: int, seconds: float, changes: Changes, verify: Callable[[str], str | None]
) -> Verdict:
    """Run the order's gates in their fixed order, up to the first that fails.

    `verify` runs the command and returns None, or what it said when it failed.
    """
    verdict = Verdict(order)
    checks: dict[str, Callable[[], tuple[str, str] | None]] = {
        "exit": lambda: ("exit", f"the agent ended with exit code {code}") if code else None,
        "min_duration": lambda: _too_short(order, seconds),
        "changed": lambda: _unchanged(code, changes),
        "conflict_markers": lambda: _find(changes, _MARKERS, "conflict_markers"),
        "no_todo": lambda: _find(changes, _TODO, "no_todo"),
        "verify": lambda: _verified(order, verify),
    }
    for gate, check in checks.items():
        if gate not in verdict.gates or (gate == "verify" and order.verify is None):
            continue
        failure = check()
        if failure:
            verdict.fail(gate, *failure)
            return verdict
        verdict.gates[gate] = "passed"
    return verdict


def _too_short(order: Order, seconds: float) -> tuple[str, str] | None:
    if seconds >= order.min_duration:
        return None
    return "gate:min_duration", f"ran {seconds:.1f} s, at least {order.min_duration:g} s are asked"


def _unchanged(code: int, changes: Changes) -> tuple[str, str] | None:
    if changes.any:
        return None
    return ("gate:changed" if code else "empty_run"), "the agent ended and nothing had changed"


def _find(changes: Changes, pattern: re.Pattern[str], gate: str) -> tuple[str, str] | None:
    for name, text in changes.new_text():
        found = pattern.search(text)
        if found:
            line = text.count("\n", 0, found.start()) + 1
            return f"gate:{gate}", f"{name}: {found.group()[:60]!r} in line {line} of what is new"
    return None


def _verified(order: Order, verify: Callable[[str], str | None]) -> tuple[str, str] | None:
    said = verify(order.verify or "")
    return None if said is None else ("gate:verify", said)
