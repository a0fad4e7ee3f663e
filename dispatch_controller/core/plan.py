"""The plan of a registration: what to write, what to tell, and its form for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dispatch_controller.core.spec import Document, SpecError
from dispatch_controller.model import TaskStatus


@dataclass(frozen=True, slots=True)
class KnownTask:
    """A row of `tasks`, as far as registration looks at it."""

    id: str
    project: str
    spec_file: str
    spec_hash: str | None
    status: TaskStatus
    depends_on: tuple[str, ...] | None = ()
    """None where the column holds no JSON list of strings."""
    modifies: tuple[str, ...] = ()
    exclusive: bool = False
    priority: int = 2
    max_retries: int = 2
    estimated_minutes: int = 30


@dataclass(frozen=True, slots=True)
class SpecColumns:
    """The columns of `tasks` that come from a spec; nothing else of a row is ever written here."""

    id: str
    project: str
    spec_file: str
    spec_hash: str
    depends_on: tuple[str, ...]
    modifies: tuple[str, ...]
    exclusive: bool
    priority: int
    max_retries: int
    estimated_minutes: int


@dataclass(frozen=True, slots=True)
class SpecEvent:
    """A row for `events`. `key` is the same while the same finding stands."""

    task_id: str
    event_type: str
    details: Mapping[str, str]

    @property
    def key(self) -> tuple[str, ...]:
        return (self.event_type, self.task_id, *map(str, self.details.values()))


@dataclass(frozen=True, slots=True)
class SpecWarning:
    """Something a person should look at; the file was taken all the same."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write, and what to tell, in an order that depends on the input alone."""

    inserts: tuple[SpecColumns, ...] = ()
    updates: tuple[SpecColumns, ...] = ()
    """Only rows that are pending or failed; to be written only while they still are."""
    unchanged: tuple[str, ...] = ()
    """Ids whose rows stay as they are, rows kept although the file changed among them."""
    links: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(id, depends_on) of pending and failed rows whose dependencies resolve anew."""
    hashes: tuple[tuple[str, str], ...] = ()
    """(id, spec_hash) of rows that had none and are otherwise as their file says."""
    events: tuple[SpecEvent, ...] = ()
    """New findings only: those not in `reported`."""
    standing: frozenset[tuple[str, ...]] = frozenset()
    """Keys of all findings that stand now; the next plan's `reported`."""
    errors: tuple[SpecError, ...] = ()
    warnings: tuple[SpecWarning, ...] = ()
    cycles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Task -> path of the cycle it is in, over all tasks that are not completed."""

    @property
    def changes(self) -> bool:
        """Whether any task is new or changed."""
        return bool(self.inserts or self.updates or self.links or self.hashes)

    @property
    def quiet(self) -> bool:
        """Whether there is nothing to write: neither a change nor a new event."""
        return not self.changes and not self.events


def report(
    planned: Plan,
    *,
    documents: Sequence[Document] = (),
    errors: Sequence[SpecError] = (),
    warnings: Sequence[SpecWarning] = (),
) -> dict[str, Any]:
    """Return the outcome in the form of `register --json` (operations.md).

    `errors` and `warnings` are those met while the files were read; the plan's are added.
    """
    all_errors = sorted((*errors, *planned.errors), key=lambda error: (error.file, error.line))
    all_warnings = sorted((*warnings, *planned.warnings), key=lambda warning: warning.file)
    return {
        "registered": len(planned.inserts),
        "updated": len(planned.updates),
        "unchanged": len(planned.unchanged),
        "documents": len(documents),
        "errors": [{"file": e.file, "line": e.line, "reason": e.reason} for e in all_errors],
        "warnings": [{"file": w.file, "reason": w.reason} for w in all_warnings],
    }
