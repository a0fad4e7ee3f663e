"""Reading what model endpoints answer: rate limits, server-sent events, JSON of any shape."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from dispatch_controller.core.times import parse_iso

ANSWER_LIMIT = 4 * 1024 * 1024
"""Bytes of an answer at most."""
LONGEST_WAIT = 86_400.0

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_RESETS = re.compile(r"(?:anthropic|x)-ratelimit-.*reset|(?:anthropic|x)-ratelimit-reset.*")


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the Unix seconds at which a rate limit is over, where the headers say so."""
    named = headers.get("retry-after")
    found = _moment(named, now) if named else None
    if found is None:
        moments = [
            _moment(value, now) for name, value in headers.items() if _RESETS.fullmatch(name)
        ]
        found = max((moment for moment in moments if moment is not None), default=None)
    return None if found is None else min(max(found, now), now + LONGEST_WAIT)


def _moment(text: str, now: float) -> float | None:
    text = text.strip()
    if re.fullmatch(r"\d{1,12}(\.\d+)?", text):
        number = float(text)
        return number if number > 1e9 else now + number
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return now + sum(float(number) * _UNITS[unit] for number, unit in parts)
    at = parse_iso(text)
    if at is not None:
        return at
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def events(body: bytes) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of server-sent events; what is cut or no JSON is passed over."""
    for line in body.decode("utf-8", "replace").splitlines():
        if not line.startswith("data:"):
            continue
        try:
            data = json.loads(line.removeprefix("data:"))
        except (ValueError, RecursionError):
            continue
        if isinstance(data, dict):
            yield data


def load(body: bytes) -> dict[str, Any]:
    """Return a JSON object; an empty one where there is none."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def pick(data: object, *path: str | int) -> Any:  # noqa: ANN401
    """Return what lies at a path of keys and indexes; None where something else is there."""
    for key in path:
        if isinstance(key, str) and isinstance(data, dict):
            data = data.get(key)
        elif isinstance(key, int) and isinstance(data, list) and -len(data) <= key < len(data):
            data = data[key]
        else:
            return None
    return data


def text_of(value: object) -> str:
    return value if isinstance(value, str) else ""


def count_of(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
