"""ISO 8601 as the database's columns hold it."""

from __future__ import annotations

from datetime import UTC, datetime

_LATEST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


def iso(at: float) -> str:
    """Return Unix seconds as UTC with microseconds and `+00:00`: the form the controller writes.

    A time that no calendar has (a node's clock may say anything) becomes the nearest it has.
    """
    at = min(_LATEST, max(0.0, at))
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")


def parse_iso(text: object) -> float | None:
    """Return Unix seconds; None where there is no time that can be read.

    Accepts naive local time, offsets and `Z` (database.md, tasks).
    """
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
