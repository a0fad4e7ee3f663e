"""What is known of a service: for /v1/status, /metrics and the health check."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class LoopStats:
    name: str
    interval: float = 0.0
    """Seconds between steps; 0 for a service that is not timed."""
    cycle: int = 0
    """Timed steps begun; woken ones do not count."""
    steps: int = 0
    last_ok: float | None = None
    """Unix seconds at which the last good step ended."""
    last_error: str | None = None
    restarts: int = 0
    durations: list[float] = field(default_factory=list)
    """Seconds each step took since somebody last took the list (the metrics do)."""

    def succeeded(self, now: float, took: float) -> None:
        self.steps += 1
        self.last_ok = now
        if len(self.durations) < 1000:
            self.durations.append(took)

    def failed(self, error: BaseException) -> None:
        self.restarts += 1
        self.last_error = f"{type(error).__name__}: {error}"
