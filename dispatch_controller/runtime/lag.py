"""The program watches its own event loop."""

from __future__ import annotations

from collections import deque

import trio


class Lag:
    """How late a sleeping task was woken, over the last minute."""

    INTERVAL = 0.25

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=int(60 / self.INTERVAL))

    @property
    def worst(self) -> float:
        """Seconds, the worst of the last minute."""
        return max(self._seen, default=0.0)

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            due = trio.current_time() + self.INTERVAL
            await trio.sleep_until(due)
            self._seen.append(trio.current_time() - due)
