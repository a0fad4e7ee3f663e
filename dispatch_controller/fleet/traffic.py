"""How a node's calls went, counted by its transport for the metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from dispatch_controller.fleet.transport import TransportLost

MOST = 10_000


@dataclass(slots=True)
class Traffic:
    """Since somebody last took them (the metrics do)."""

    round_trips: list[float] = field(default_factory=list)
    """Seconds of each call that was answered."""
    failures: int = 0

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count the call that is made inside."""
        began = trio.current_time()
        try:
            yield
        except TransportLost:
            self.failures += 1
            raise
        if len(self.round_trips) < MOST:
            self.round_trips.append(trio.current_time() - began)

    def take(self) -> tuple[list[float], int]:
        """Return (round trips, failures) and begin anew."""
        taken = self.round_trips, self.failures
        self.round_trips, self.failures = [], 0
        return taken
