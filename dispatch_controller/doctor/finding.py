"""What a check found: data, so that people get sentences and programs get fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Severity(StrEnum):
    ERROR = "error"
    """Something cannot work until it is mended."""
    WARNING = "warning"
    """It works, and not as it should."""
    NOTE = "note"
    """Good to know; nothing to mend."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing. `subject` is the file, node, project or process it is about."""

    check: str
    severity: Severity
    subject: str
    text: str
    fix: str
    """What a person does about it; empty for a note."""
    repair: Callable[[], None] | None = field(default=None, compare=False, repr=False)
    """Does the same where that is safe (`--fix`). Raises OSError."""

    def as_dict(self) -> dict[str, str]:
        return {
            "check": self.check,
            "severity": self.severity.value,
            "subject": self.subject,
            "text": self.text,
            "fix": self.fix,
        }


def error(
    check: str, subject: object, text: str, fix: str, repair: Callable[[], None] | None = None
) -> Finding:
    return Finding(check, Severity.ERROR, str(subject), text, fix, repair)


def warning(
    check: str, subject: object, text: str, fix: str, repair: Callable[[], None] | None = None
) -> Finding:
    return Finding(check, Severity.WARNING, str(subject), text, fix, repair)


def note(check: str, subject: object, text: str, fix: str = "") -> Finding:
    return Finding(check, Severity.NOTE, str(subject), text, fix)
