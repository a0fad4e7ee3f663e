"""Which release of the wrapper each node runs; kept in `<home>/wrapper/` across restarts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from dispatch_controller.core import rollout as rules
from dispatch_controller.core.rollout import Rollout
from dispatch_controller.fleet.bundle import Bundle
from dispatch_controller.runtime.threads import RunSync

log = structlog.get_logger(__name__)

Release = Callable[[Bundle, str | None, Bundle | None], None]
"""Tells the fleet: what nodes run, and which one tries what."""


@dataclass(slots=True)
class Releases:
    """Follows a new wrapper from its first node to all, or back."""

    folder: Path
    current: Bundle
    release: Release
    run_sync: RunSync
    state: Rollout
    previous: Bundle | None

    @classmethod
    def load(cls, folder: Path, current: Bundle, release: Release, run_sync: RunSync) -> Releases:
        """Read what earlier processes found out. Unreadable or missing: as on a first start."""
        good, bad, previous = None, frozenset[str](), None
        try:
            kept = json.loads((folder / "state.json").read_text("utf-8"))
            good, bad = kept["good"], frozenset(kept["bad"])
            if good != current.sha256:
                previous = Bundle.read(folder / f"{good}.pyz")
        except (OSError, ValueError, KeyError, TypeError) as error:
            if not isinstance(error, FileNotFoundError):
                log.warning("what is known of wrapper releases cannot be read", error=str(error))
            good = None
        if previous is not None and previous.sha256 != good:
            good, previous = None, None
        return cls(folder, current, release, run_sync, Rollout(current.sha256, good, bad), previous)

    def apply(self) -> None:
        """Tell the fleet what the state says."""
        default = self.current
        if self.state.default != self.current.sha256 and self.previous is not None:
            default = self.previous
        self.release(default, self.state.canary, self.current if self.state.canary else None)

    def choose(self, alive: list[str]) -> None:
        """Choose or drop the node that tries a new release."""
        self._become(rules.choose_canary(self.state, alive))

    async def task_done(self, wrapper: str | None) -> None:
        """A task was completed under this release."""
        before = self.state.good
        self._become(rules.task_done(self.state, wrapper))
        if self.state.good != before:
            log.info("wrapper proved itself", wrapper=self.current.sha256[:16])
            await self._save()

    async def start_failed(self, node: str) -> None:
        """A start failed there for the wrapper's sake."""
        before = self.state.bad
        self._become(rules.start_failed(self.state, node))
        if self.state.bad != before:
            log.error("wrapper taken back", wrapper=self.current.sha256[:16], node=node)
            await self._save()

    def _become(self, state: Rollout) -> None:
        if state != self.state:
            told = (state.default, state.canary) != (self.state.default, self.state.canary)
            self.state = state
            if told:
                self.apply()

    async def _save(self) -> None:
        await self.run_sync(_write, self.folder, self.state, self.current)


def _write(folder: Path, state: Rollout, current: Bundle) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if state.good == current.sha256:
        _replace(folder / f"{current.sha256}.pyz", current.content)
    kept = {"good": state.good, "bad": sorted(state.bad)}
    _replace(folder / "state.json", json.dumps(kept, indent=2).encode())
    for old in folder.glob("*.pyz"):
        if old.stem != state.good:
            old.unlink()


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_suffix(".new")
    beside.write_bytes(content)
    beside.replace(path)
