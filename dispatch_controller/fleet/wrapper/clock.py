"""Times as the wrapper writes and reads them."""

from __future__ import annotations

import time
from datetime import datetime, timezone


def now() -> float:
    """Unix seconds by this node's clock."""
    return time.time()


def iso(at: float) -> str:
    """ISO 8601, UTC, milliseconds."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
    return f"{whole}.{int(at % 1 * 1000):03d}+00:00"


def parse_iso(text: object) -> float | None:
    """Unix seconds of a time from status.json, None when it is none.

    Older wrappers write `Z`, an offset, or none, which means UTC.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return float(text)
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=timezone.utc)).timestamp()
