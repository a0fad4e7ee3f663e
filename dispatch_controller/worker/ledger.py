"""What this worker runs, and the ends that its controller has not acknowledged.

All of it is read from the wrapper's own files, by its `serve`: nothing here has to survive.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dispatch_controller.fleet.observation import task_fields
from dispatch_controller.model import Observation, RunState, TaskRef
from dispatch_controller.runtime.every import Wake

MOST_DETAILED = 200
"""Tasks up to which a listing tells how each goes on; beyond, it says only that they live."""


class Ledger:
    """Changed only on Trio's thread."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.changed = Wake()
        """Set when something started or ended: the controller is told at once."""
        self.ended = Wake()
        """Set when there is an end to report."""
        self._tasks: dict[str, Observation] = {}
        self._settled: set[str] = set()
        self._starting: set[str] = set()
        self._limits: dict[str, float] = {}

    # --- what is known

    @property
    def free(self) -> int:
        """Slots that are free; a task that ended and is not reported yet takes none."""
        live = {lease for lease, seen in self._tasks.items() if _lives(seen)}
        return max(0, self.slots - len(live | self._starting))

    def leases(self) -> set[str]:
        return set(self._tasks)

    def get(self, lease: str) -> Observation | None:
        return self._tasks.get(lease)

    def unreported(self) -> list[Observation]:
        """Return the ends to be reported, the oldest first."""
        ends = [seen for seen in self._tasks.values() if seen.state.final]
        return sorted(ends, key=lambda seen: seen.completed_at or 0.0)

    def knows(self, lease: str) -> bool:
        """Whether the lease runs here, ended here, or is about to start."""
        return lease in self._tasks or lease in self._starting or lease in self._settled

    def listing(self, now: float, *, ends: bool = False) -> list[dict[str, Any]]:
        """Return running_tasks. An end counts as running until it is reported, which keeps its
        lease; with `ends`, its own fields say that it ended."""
        detailed = len(self._tasks) <= MOST_DETAILED
        return [
            {
                "task_id": seen.task_id,
                "lease_owner": seen.lease,
                "elapsed": None if seen.started_at is None else max(0.0, now - seen.started_at),
                "timeout": self._limits.get(lease),
                "task": task_fields(seen) if ends or (detailed and _lives(seen)) else None,
            }
            for lease, seen in sorted(self._tasks.items())
        ]

    # --- what happens

    def begin(self, lease: str, limit: float | None) -> None:
        """A start is under way: it takes a slot."""
        self._starting.add(lease)
        if limit is not None:
            self._limits[lease] = limit

    def begun(self, lease: str) -> None:
        """The start is over, however it went."""
        self._starting.discard(lease)
        if lease not in self._tasks:
            self._limits.pop(lease, None)

    def take(self, observations: Iterable[Observation]) -> None:
        """Take in what `serve` tells of tasks."""
        for seen in observations:
            lease = seen.lease
            if lease is None or seen.task_id is None or lease in self._settled:
                continue
            before = self._tasks.get(lease)
            if seen.state is RunState.UNKNOWN or (before is not None and before.state.final):
                continue
            self._tasks[lease] = seen
            if before is None or before.state is not seen.state:
                self.changed.set()
            if seen.state.final:
                self.ended.set()

    def take_all(self, told: Iterable[Observation], known_before: set[str]) -> list[TaskRef]:
        """Take in a whole collection; return what is settled and was told all the same.

        `known_before` are the leases known when it was asked for: of those, what it does not tell
        is gone.
        """
        told = list(told)
        leases = {seen.lease for seen in told if seen.lease is not None}
        broken = {(s.project, s.folder) for s in told if s.lease is None and s.alive}
        for lease in known_before - leases:
            gone = self._tasks.get(lease)
            if gone is not None and (gone.project, gone.folder) not in broken:
                del self._tasks[lease]
                self._limits.pop(lease, None)
        self._settled &= leases
        self.take(told)
        return [
            TaskRef(seen.project, seen.folder, seen.lease)
            for seen in told
            if seen.lease is not None and seen.lease in self._settled
        ]

    def settle(self, lease: str) -> None:
        """The controller has acknowledged the end."""
        self._tasks.pop(lease, None)
        self._limits.pop(lease, None)
        self._settled.add(lease)


def _lives(seen: Observation) -> bool:
    return seen.alive or not seen.state.final
