"""Results of the wrapper's verbs as values of the model. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dispatch_controller.model import LogChunk, Probe


def node_probe(node: str, result: Mapping[str, Any], at: float, round_trip: float) -> Probe:
    """Read the result of `probe`; `at` is our clock when it came. Raises ValueError without `now`.

    The node read its clock somewhere within the round trip: its middle is taken.
    """
    now = result.get("now")
    if not isinstance(now, int | float):
        raise ValueError(f"no time in {result!r:.80}")
    agents = result.get("agents")
    return Probe(
        node=node,
        at=at,
        round_trip=round_trip,
        clock_skew=now - (at - round_trip / 2),
        load=_load(result.get("load")),
        cpus=_int(result.get("cpus")),
        memory_total=_int(result.get("memory_total")),
        memory_free=_int(result.get("memory_free")),
        disk_total=_int(result.get("disk_total")),
        disk_free=_int(result.get("disk_free")),
        wrapper=_str(result.get("wrapper")),
        python=_str(result.get("python")),
        git=_str(result.get("git")),
        boot_id=_str(result.get("boot_id")),
        agents={
            str(name): {str(key): _str(value) for key, value in found.items()}
            for name, found in (agents.items() if isinstance(agents, Mapping) else ())
            if isinstance(found, Mapping)
        },
    )


def log_chunk(result: Mapping[str, Any]) -> LogChunk:
    """Read the result of `log`. Raises ValueError."""
    offset, size, text = result.get("offset"), result.get("size"), result.get("text")
    if not isinstance(offset, int) or not isinstance(size, int) or not isinstance(text, str):
        raise ValueError(f"not a piece of a log: {result!r:.80}")
    return LogChunk(offset, size, text, result.get("alive") is True)


def _load(value: object) -> tuple[float, float, float] | None:
    if isinstance(value, list) and len(value) == 3:
        try:
            return (float(value[0]), float(value[1]), float(value[2]))
        except (TypeError, ValueError):
            return None
    return None


def _int(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) else None


def _str(value: object) -> str | None:
    return value if isinstance(value, str) else None
