"""A new wrapper goes to one node first, to the others after its first good task there, and back
after two failed starts (nodes.md; loops.md, Drift). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

FAILED_STARTS = 2


@dataclass(frozen=True, slots=True)
class Rollout:
    """Which release, by SHA-256, goes where."""

    current: str
    """The release of this controller."""
    good: str | None
    """The last release that proved itself; None before the first one did."""
    bad: frozenset[str] = frozenset()
    """Releases that were taken back."""
    canary: str | None = None
    """The node that tries `current` while the others keep `good`."""
    failed_starts: int = 0

    @property
    def trying(self) -> bool:
        """Whether a release is to be tried on one node before the others get it."""
        return self.good not in (None, self.current) and self.current not in self.bad

    @property
    def default(self) -> str:
        """What nodes other than the canary run."""
        if self.good is None or self.good == self.current:
            return self.current
        return self.good


def choose_canary(rollout: Rollout, alive: Sequence[str]) -> Rollout:
    """Take the first node that answers, where one is needed; drop one that is gone."""
    if not rollout.trying:
        return replace(rollout, canary=None)
    if rollout.canary in alive:
        return rollout
    return replace(rollout, canary=min(alive, default=None), failed_starts=0)


def task_done(rollout: Rollout, wrapper: str | None) -> Rollout:
    """A task was completed by this release of the wrapper: it is good, wherever that was.

    One that was taken back stays so: what it had begun before may end well.
    """
    done = rollout.good == rollout.current or rollout.current in rollout.bad
    if wrapper != rollout.current or done:
        return rollout
    return replace(rollout, good=rollout.current, canary=None, failed_starts=0)


def start_failed(rollout: Rollout, node: str) -> Rollout:
    """A start failed for the wrapper's sake; the second one on the canary takes it back."""
    if not rollout.trying or node != rollout.canary:
        return rollout
    failed = rollout.failed_starts + 1
    if failed < FAILED_STARTS:
        return replace(rollout, failed_starts=failed)
    return replace(rollout, bad=rollout.bad | {rollout.current}, canary=None, failed_starts=0)
