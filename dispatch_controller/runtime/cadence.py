"""Sub-steps that are due every n-th cycle only."""

from __future__ import annotations


class Cadence:
    """Says once per cycle whether a sub-step is due: in the first cycle, then every n-th.

    A woken step has the cycle of the timed one before it, so nothing is due twice.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def due(self, name: str, cycle: int, every: int) -> bool:
        if (cycle - 1) % every or self._last.get(name) == cycle:
            return False
        self._last[name] = cycle
        return True
