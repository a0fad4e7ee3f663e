"""Whom the factory leaves alone for a while: what failed, and what had nothing new to say.

Kept in memory: a controller that starts anew may ask once more, within every other limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LONGEST = 3600.0
"""Seconds that a generator which failed, or had nothing new to say, is left alone at most."""
LEAST = 600.0
"""Seconds after which one that had nothing is asked again if the project's tasks have moved on."""


@dataclass(frozen=True, slots=True)
class _Pause:
    until: float
    why: str
    failures: int = 0
    counts: Mapping[str, int] | None = None
    """How the tasks stood when there was nothing new."""
    least: float = field(default=0.0)


class Pauses:
    """A failure of a program or model holds for all projects; one of `gaps` for its own."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._pauses: dict[str, _Pause] = {}

    def why(
        self, generator: str, project: str, counts: Mapping[str, int], now: float
    ) -> str | None:
        """Return why the project's generator is not asked now, or None."""
        for key in (self._shared(generator, project), f"nothing {project}"):
            pause = self._pauses.get(key)
            if pause is None or now >= pause.until:
                continue
            if pause.counts is not None and pause.counts != counts and now >= pause.least:
                continue
            return f"{pause.why}; asked again in {max(1, round(pause.until - now))} s"
        return None

    def failed(
        self, generator: str, project: str, reason: str, now: float, retry_at: float | None
    ) -> None:
        """The next cycle tries again after a first failure; the pauses double from then on."""
        key = self._shared(generator, project)
        before = self._pauses.get(key)
        failures = (before.failures if before is not None else 0) + 1
        pause = self._interval / 2 if failures == 1 else self._interval * 2 ** min(failures, 12) / 4
        until = max(now + min(pause, LONGEST), retry_at or 0.0)
        self._pauses[key] = _Pause(until, f"{generator} failed: {reason}", failures)

    def nothing(self, generator: str, project: str, counts: Mapping[str, int], now: float) -> None:
        """It answered, and nothing new came of it."""
        self._pauses.pop(self._shared(generator, project), None)
        self._pauses[f"nothing {project}"] = _Pause(
            now + LONGEST, f"{generator} had nothing new", 0, dict(counts), now + LEAST
        )

    def made(self, generator: str, project: str) -> None:
        self._pauses.pop(self._shared(generator, project), None)
        self._pauses.pop(f"nothing {project}", None)

    def forget(self) -> None:
        """Ask everybody again."""
        self._pauses.clear()

    def _shared(self, generator: str, project: str) -> str:
        return f"gaps {project}" if generator == "gaps" else generator
