"""The one interface of all generators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dispatch_controller.core.candidates import Candidate
from dispatch_controller.core.dependencies import Names
from dispatch_controller.core.gaps import Completed, Ended
from dispatch_controller.factory.checkout import Checkout
from dispatch_controller.model import Task


@dataclass(frozen=True, slots=True)
class Request:
    """What a generator is asked for, and all it may know of the project."""

    project: str
    generation: int
    wanted: int
    """Specs at most."""
    seen: frozenset[str]
    """Evidence keys that were used."""
    checkout: Checkout | None
    checks: tuple[str, ...] = ()
    """Commands that must succeed in the checkout; the first is the project's `verify`."""
    ended: Sequence[Ended] = ()
    completed: Sequence[Completed] = ()
    waiting: Sequence[Task] = ()
    """Pending tasks that depend on something."""
    names: Names = field(default_factory=lambda: Names(()))
    verify: dict[str, str | None] = field(default_factory=dict)
    """What checks a task, by its id."""
    notes: str = ""
    """What research found lately."""
    instructions: str = ""
    """AGENTS.md or CLAUDE.md of the checkout."""

    @property
    def root(self) -> Path | None:
        return None if self.checkout is None else self.checkout.root


@dataclass(frozen=True, slots=True)
class Generated:
    """What a generator wrote; `remarks` are findings that became no spec."""

    candidates: list[Candidate] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class GeneratorFailed(Exception):
    """It gave nothing that can be used. `retry_at` (Unix seconds) is set where it said when."""

    def __init__(self, reason: str, retry_at: float | None = None) -> None:
        super().__init__(reason)
        self.retry_at = retry_at


class Generator(Protocol):
    async def generate(self, request: Request) -> Generated:
        """Return candidates, `request.wanted` at most. Raises GeneratorFailed."""
