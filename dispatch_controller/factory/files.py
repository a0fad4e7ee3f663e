"""Small files of the factory: written beside their place, then moved there. Blocking."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file; an empty one where it is missing or broken.

    What these files hold can be found again (by asking a feed for all of it, say), so that a
    broken one is no reason to stop.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write an object, whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _beside(path, json.dumps(data, ensure_ascii=False, indent=1) + "\n").replace(path)


def write_new(path: Path, text: str) -> None:
    """Make a file that does not exist yet, whole or not at all.

    Raises FileExistsError, or another OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(path, text)
    try:
        os.link(beside, path)
    finally:
        beside.unlink()


def _beside(path: Path, text: str) -> Path:
    """Return a hidden file (no spec, to registration) with the text, on the disk."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise
    return beside
