"""What a path of `modifies` covers: NFC, case folded; a folder covers all below it."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_GLOB = re.compile(r"[*?\[{]")


def outside(files: Iterable[str], modifies: Iterable[str]) -> list[str]:
    """Return the files that no declared path covers, sorted. Nothing declared: nothing outside."""
    covers = [_cover(path) for path in modifies]
    if not covers:
        return []
    return sorted(f for f in files if not any(_covers(c, _normal(f)) for c in covers))


def _normal(path: str) -> str:
    text = unicodedata.normalize("NFC", path).casefold()
    return "/".join(part for part in text.split("/") if part not in ("", "."))


def _cover(path: str) -> str:
    """A glob counts as its literal parent folder."""
    parts = path.split("/")
    for at, part in enumerate(parts):
        if _GLOB.search(part):
            return _normal("/".join(parts[:at]))
    return _normal(path)


def _covers(cover: str, path: str) -> bool:
    return cover == "" or path == cover or path.startswith(cover + "/")
