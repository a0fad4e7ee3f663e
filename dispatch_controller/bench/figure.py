"""One measured figure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True, slots=True)
class Figure:
    """`wanted` is what it should reach, in words; `kept` whether it does (None: no mark)."""

    name: str
    value: str
    wanted: str = ""
    kept: bool | None = None


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def spread(seconds: list[float]) -> str:
    """Return median and 95th percentile in words."""
    if len(seconds) < 2:
        return milliseconds(seconds[0]) if seconds else "nothing measured"
    return (
        f"median {milliseconds(median(seconds))}, p95 {milliseconds(quantiles(seconds, n=20)[-1])}"
    )
