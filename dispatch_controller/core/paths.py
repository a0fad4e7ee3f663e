"""Paths of `modifies`: how they are compared, and who holds what (scheduling.md, rule 2)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

WHOLE_PROJECT = ""
"""What `.`, `*.py` or `**` come to: a path that every other one lies under."""

_GLOB = re.compile(r"[*?\[{]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"[A-Za-z]:", re.ASCII)
_LONGEST = 1024


def problem(path: str) -> str | None:
    """Return why a spec may not name `path` in `modifies`, or None if it may."""
    if len(path) > _LONGEST:
        return f"it has {len(path)} characters; at most {_LONGEST} are allowed"
    if _CONTROL.search(path):
        return "it contains a control character"
    slashed = path.replace("\\", "/")
    if slashed.startswith(("/", "~")) or _DRIVE.match(slashed):
        return "it is absolute; paths are relative to the project's folder"
    depth = 0
    for part in slashed.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            return "it climbs out of the project's folder"
    return None


@lru_cache(maxsize=65536)
def normalise(path: str) -> str:
    """Return the form in which paths are compared; takes any string.

    NFC and case folded, `/` between parts, no `.`, `..` or empty part, and cut before the first
    part with a glob character: a glob stands for its literal parent folder, and the project's
    own folder is "". An absolute or climbing path (only other programs write those) keeps its
    leading `/` or `..`, so that it meets its like.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
    slashed = folded.replace("\\", "/")
    parts: list[str] = [""] if slashed.startswith("/") else []
    for part in slashed.split("/"):
        if _GLOB.search(part):
            break
        if part == ".." and parts and parts[-1] not in ("", ".."):
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def conflict(a: Iterable[str], b: Iterable[str]) -> str | None:
    """Return the first path of `a`, normalised, that conflicts with one of `b`, or None."""
    held = HeldPaths()
    held.add("", b)
    return next((normalise(path) for path in a if held.conflict((path,)) is not None), None)


class HeldPaths:
    """The paths that live tasks of one project hold. A question costs the depth of a path."""

    def __init__(self) -> None:
        self._holders: dict[str, str] = {}
        self._below: dict[str, tuple[str, str]] = {}

    def add(self, task_id: str, paths: Iterable[str]) -> None:
        """Record that the task holds these paths; where one is held already, the first stays."""
        for path in map(normalise, paths):
            self._holders.setdefault(path, task_id)
            for folder in _ancestors(path):
                self._below.setdefault(folder, (path, task_id))

    def conflict(self, paths: Iterable[str]) -> tuple[str, str] | None:
        """Return (held path, id of its holder) for the first path that is not free, or None.

        A path is not free when it, a folder above it or something under it is held.
        """
        for path in map(normalise, paths):
            for place in (path, *_ancestors(path)):
                if place in self._holders:
                    return place, self._holders[place]
            if path in self._below:
                return self._below[path]
        return None


def _ancestors(path: str) -> Iterator[str]:
    """Yield the folders above a normalised path, nearest first, the whole project last."""
    while path != WHOLE_PROJECT:
        path = path.rpartition("/")[0]
        yield path
