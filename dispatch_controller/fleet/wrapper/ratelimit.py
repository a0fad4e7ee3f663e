"""When does a rate limit end? Read from what the agent printed."""

from __future__ import annotations

import re
import time

from dispatch_controller.fleet.wrapper.clock import parse_iso

_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_AFTER = re.compile(
    r"retry[-_ ]after[\"']?\s*[:=]?\s*[\"']?(\d+(?:\.\d+)?)(?![\d:])", re.IGNORECASE
)
_IN = re.compile(
    r"\b(?:in|after|wait)\s+(?:about\s+)?((?:\d+(?:\.\d+)?\s*"
    r"(?:seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|[smhd])\b[\s,]*)+)",
    re.IGNORECASE,
)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])", re.IGNORECASE)
_ISO = re.compile(r"\b(\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)")
_EPOCH = re.compile(r"(?<!\d)(1[6-9]\d{8}|2\d{9})(?:\d{3})?(?!\d)")
_CLOCK = re.compile(
    r"(?:resets?|again|until|available)\b[^\n]{0,20}?\b(\d{1,2})(?::(\d\d))?\s*(am|pm)?\b",
    re.IGNORECASE,
)


def reset_time(text: str, now: float) -> float | None:
    """Return the Unix time at which the text says the limit ends, None when it names none.

    Only a time from `now` to eight days ahead is believed.
    """
    for read in (_seconds_ahead, _date, _time_of_day):
        at = read(text, now)
        if at is not None and now <= at <= now + 8 * 86400:
            return at
    return None


def _seconds_ahead(text: str, now: float) -> float | None:
    found = _AFTER.search(text)
    if found:
        return now + float(found.group(1))
    found = _IN.search(text)
    if not found:
        return None
    parts = _PART.findall(found.group(1))
    return now + sum(float(number) * _UNIT[unit.lower()] for number, unit in parts)


def _date(text: str, now: float) -> float | None:
    found = _ISO.search(text)
    if found:
        return parse_iso(found.group(1))
    found = _EPOCH.search(text)
    return float(found.group(1)) if found else None


def _time_of_day(text: str, now: float) -> float | None:
    found = _CLOCK.search(text)
    if not found or not (found.group(2) or found.group(3)):
        return None
    hour, minute, half = int(found.group(1)), int(found.group(2) or 0), found.group(3)
    if half:
        hour = hour % 12 + (12 if half.lower() == "pm" else 0)
    if hour > 23 or minute > 59:
        return None
    day = time.localtime(now)
    at = time.mktime((day.tm_year, day.tm_mon, day.tm_mday, hour, minute, 0, 0, 0, -1))
    return at if at > now else at + 86400
