"""Numbers and times in words, for the pages."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from markupsafe import Markup

from dispatch_controller.core.times import iso

_STEPS = ((60.0, "s"), (3600.0, "min"), (86_400.0, "h"))


def span(seconds: float | None) -> str:
    """Return a duration: `350 ms`, `42 s`, `12 min`, `3 h 5 min`, `4 d`."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    if seconds < 60:
        return f"{int(seconds)} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min"
    if seconds < 2 * 86_400:
        hours, minutes = divmod(int(seconds // 60), 60)
        return f"{hours} h {minutes} min" if minutes and hours < 10 else f"{hours} h"
    return f"{int(seconds // 86_400)} d"


def ago(at: float, now: float) -> str:
    """Return `now`, `3 min ago` or `in 3 min`."""
    age = now - at
    if abs(age) < 1:
        return "now"
    words = span(math.floor(abs(age)))
    return f"{words} ago" if age > 0 else f"in {words}"


def when(at: float | None, now: float) -> Markup:
    """Return a time as an element: relative in its text, exact in its title."""
    if at is None:
        return Markup("<span class=none>–</span>")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        iso(at), exact(at), ago(at, now)
    )


def exact(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def size(octets: float | None) -> str:
    """Return bytes in the unit that fits."""
    if octets is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(octets) < 1024:
            return (
                f"{octets:.0f} {unit}" if unit == "B" or octets >= 100 else f"{octets:.1f} {unit}"
            )
        octets /= 1024
    return f"{octets:.1f} TiB"


def count(number: int) -> str:
    """Return a whole number with thin spaces between thousands."""
    return f"{number:,}".replace(",", "\u202f")


def change(now: float, before: float) -> str | None:
    """Return how a figure changed against the one before: `+12 %`; None where nothing was."""
    if before <= 0:
        return None
    percent = round(100 * (now - before) / before)
    return "as before" if percent == 0 else f"{percent:+d} %".replace("-", "−")


def shortened(text: str, most: int) -> str:
    """Return `text`, its middle left out where it is longer than `most`: ends tell ids apart."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[-tail:]}"
