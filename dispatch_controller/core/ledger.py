"""What the factory has done, as its rows in `events` tell it: read once, then kept up to date.

The schema of the database is frozen, so that these rows are all there is (docs/factory.md).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from dispatch_controller.core.allowance import DAY

GENERATED = "factory_generated"
"""A spec was made and registered: task_id, project, generation, generator, evidence..."""
DRAFTED = "factory_drafted"
"""A spec was made and waits for a person (dry_run)."""
APPROVED = "factory_approved"
DROPPED = "factory_dropped"
"""By a person: its evidence is not asked for again."""
REPEATED = "factory_repeated"
"""A generator wrote what was written before."""
REJECTED = "factory_rejected"
"""It did not pass the checks, and is kept as a draft with the reason."""
ITERATION = "factory_iteration"
FAILED = "factory_failed"
"""A generator gave nothing that can be used."""
MODEL_CALL = "factory_model_call"
"""Tokens and money reserved for a call, or given back after it (then negative)."""
RESEARCH = "factory_research"
SOURCE = "factory_source"
"""A source began to fail, or answers again."""
CHECK = "factory_check"
"""A project's check could not be judged."""

KEPT = (GENERATED, DRAFTED, APPROVED, DROPPED, ITERATION, MODEL_CALL)
"""What the ledger is made of."""

_GENERATION = re.compile(r"G([0-9]{1,6})-[0-9]{2,}-", re.ASCII)


def generation_of(name: str) -> int:
    """Return the generation that an id or file name speaks of; 0 for any other name."""
    found = _GENERATION.match(name)
    return int(found[1]) if found else 0


@dataclass(slots=True)
class ProjectRecord:
    generation: int = 0
    """The last one."""
    iterated: float | None = None
    made: list[float] = field(default_factory=list)
    tasks: dict[str, None] = field(default_factory=dict)
    """Ids of generated tasks, oldest first."""
    seen: set[str] = field(default_factory=set)
    """Evidence keys that were used; none is ever used again."""


@dataclass(slots=True)
class Ledger:
    """Per project what was made, and what models cost."""

    projects: defaultdict[str, ProjectRecord] = field(
        default_factory=lambda: defaultdict(ProjectRecord)
    )
    calls: list[tuple[float, str, int, float]] = field(default_factory=list)
    """(Unix seconds, generator, tokens, cost) of reservations and what was given back."""

    def add(
        self, event_type: str, at: float, task_id: str | None, details: Mapping[str, object]
    ) -> None:
        """Take one event in; rows that other programs wrote odd are passed over."""
        project = details.get("project")
        if event_type == MODEL_CALL:
            tokens, cost = details.get("tokens"), details.get("cost")
            if isinstance(tokens, int) and isinstance(cost, int | float):
                self.calls.append((at, str(details.get("generator")), tokens, float(cost)))
            return
        if not isinstance(project, str):
            return
        record = self.projects[project]
        if event_type == ITERATION:
            record.iterated = max(at, record.iterated or at)
            return
        record.seen |= {
            key
            for key in (details.get("evidence_key"), details.get("digest"))
            if isinstance(key, str)
        }
        if event_type in (GENERATED, DRAFTED):
            record.made.append(at)
            generation = details.get("generation")
            if isinstance(generation, int):
                record.generation = max(record.generation, generation)
        if task_id is not None and event_type in (GENERATED, APPROVED):
            record.tasks[task_id] = None

    def spent(self, generator: str, now: float) -> tuple[int, float]:
        """Return (tokens, cost) of the last 24 hours."""
        self.calls = [call for call in self.calls if call[0] > now - DAY]
        own = [call for call in self.calls if call[1] == generator]
        return sum(call[2] for call in own), sum(call[3] for call in own)
