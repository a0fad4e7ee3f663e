"""Findings with one root cause are one incident: opened once, counted, closed when it is over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

REMIND_AFTER = 3600.0
"""Seconds between two alerts of one incident at the least (loops.md, Incidents)."""


class Severity(IntEnum):
    """`guardian_events.severity`."""

    INFO = 1
    WARNING = 2
    CRITICAL = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be, while it stands."""

    check: str
    """`check_type`: who found it."""
    key: str
    """`issue_key`: the same finding has the same key."""
    severity: Severity
    text: str
    root: str
    """What it comes from: `node:N`, `executor:E`, `project:P`, `database` or `controller`."""
    node: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Incident:
    """All findings of one root cause, from the first one on."""

    root: str
    opened_at: float
    severity: Severity
    text: str
    """The gravest of its findings, as found first."""
    count: int
    """Findings it has had so far."""
    told_at: float
    """When the last alert went out, Unix seconds."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of the incidents by one look at the findings."""

    incidents: Mapping[str, Incident]
    opened: tuple[Incident, ...] = ()
    closed: tuple[Incident, ...] = ()
    reminded: tuple[Incident, ...] = ()
    """Open ones whose alert is due again."""


def follow(
    incidents: Mapping[str, Incident],
    standing: Iterable[Finding],
    new: Iterable[Finding],
    now: float,
) -> Change:
    """Return the incidents after a look; `standing` are all findings, `new` those just found."""
    by_root: dict[str, list[Finding]] = {}
    for finding in standing:
        by_root.setdefault(finding.root, []).append(finding)
    fresh: dict[str, int] = {}
    for finding in new:
        fresh[finding.root] = fresh.get(finding.root, 0) + 1
    kept: dict[str, Incident] = {}
    opened, reminded = [], []
    for root in sorted(by_root):
        worst = max(by_root[root], key=lambda finding: finding.severity)
        before = incidents.get(root)
        if before is None:
            incident = Incident(root, now, worst.severity, worst.text, len(by_root[root]), now)
            opened.append(incident)
        else:
            incident = replace(
                before,
                severity=max(before.severity, worst.severity),
                text=worst.text if worst.severity > before.severity else before.text,
                count=before.count + fresh.get(root, 0),
            )
            if now - before.told_at >= REMIND_AFTER:
                incident = replace(incident, told_at=now)
                reminded.append(incident)
        kept[root] = incident
    closed = tuple(incidents[root] for root in sorted(incidents.keys() - kept.keys()))
    return Change(kept, tuple(opened), closed, tuple(reminded))
