"""The fields of a front matter: one reader for each form a value may have (specs.md).

A reader returns the value, or raises Odd with what is wrong with it; `spec` decides whether an
odd value falls back to its default with a warning, or is an error for the file.
"""

from __future__ import annotations

import re

from dispatch_controller.core import ids, paths
from dispatch_controller.core.front_matter import Mapping, Node, Scalar, Sequence

_INT = re.compile(r"[+-]?[0-9]{1,12}", re.ASCII)
_WORDS = {"high": 1, "medium": 2, "low": 3}
_P_FORM = re.compile(r"[pP]([0-9]{1,4})", re.ASCII)
_TRUE = frozenset({"true", "yes", "on"})
_FALSE = frozenset({"false", "no", "off"})
_NONE_WORDS = frozenset({"", "-", "none", "n/a", "null", "nil"})
_LONGEST_PRIORITY = 9999
_MOST_PATHS = 1000


class Odd(Exception):
    """The value has not the form of its field."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


def text(node: Node) -> str:
    """Return a scalar as written, without white space around it."""
    if not isinstance(node, Scalar):
        raise Odd(f"it is {_kind(node)}, not one value", node.line)
    return node.text.strip()


def identifier(node: Node) -> str:
    """Return an id as written: `007` and `2026-02-17` are ids, not a number and a date."""
    value = text(node)
    reason = ids.problem(value)
    if reason is not None:
        raise Odd(f"{ids.shown(value)} is not an id: {reason}", node.line)
    return value


def integer(node: Node, low: int, high: int) -> int:
    """Return a whole number between `low` and `high`; true, 1.5, 0x10 and 1e3 are none."""
    value = text(node)
    if not _INT.fullmatch(value):
        raise Odd(f"{ids.shown(value)} is not a whole number", node.line)
    if not low <= int(value) <= high:
        raise Odd(f"{value} is not between {low} and {high}", node.line)
    return int(value)


def priority(node: Node) -> int:
    """Return a priority: a whole number, `P1`, or high, medium, low in any case."""
    value = text(node)
    word = _WORDS.get(value.lower())
    if word is not None:
        return word
    form = _P_FORM.fullmatch(value)
    return int(form[1]) if form else integer(node, 0, _LONGEST_PRIORITY)


def boolean(node: Node) -> bool:
    value = text(node).lower()
    if value not in _TRUE | _FALSE:
        raise Odd(f"{ids.shown(value)} is neither true nor false", node.line)
    return value in _TRUE


def dependencies(node: Node) -> tuple[str, ...]:
    """Return ids as written, each once.

    A string is taken as ids separated by commas or white space, `none` and `n/a` as no id. What
    cannot be an id is kept: it stays unknown, so the task is blocked and reported.
    """
    if isinstance(node, Scalar):
        if node.text.strip().lower() in _NONE_WORDS:
            return ()
        return tuple(dict.fromkeys(re.split(r"[\s,]+", node.text.strip(" ,\t\n"))))
    return tuple(dict.fromkeys(item for item in _items(node) if item))


def modified_paths(node: Node) -> tuple[str, ...]:
    """Return the paths as written, each once, without white space around them.

    A string is one path: in the real files 43 are strings, most a folder's name and some a
    sentence. It is a list where it has several lines, or commas between pieces that hold no
    white space (`a.py, b.py`); a sentence with commas stays one. Raises Odd for a path that is
    absolute or climbs out of the project.
    """
    if isinstance(node, Scalar):
        found = [(piece, node.line) for piece in _pieces(node.text)]
    elif isinstance(node, Sequence):
        texts = zip(_items(node), (i.line for i in node.items if not _is_null(i)), strict=True)
        found = [(path, line) for path, line in texts if path]
    else:
        raise Odd("it is a mapping; give a list of paths", node.line)
    if len(found) > _MOST_PATHS:
        raise Odd(f"it names {len(found)} paths; at most {_MOST_PATHS} are allowed", node.line)
    for path, line in found:
        reason = paths.problem(path)
        if reason is not None:
            raise Odd(f"path {ids.shown(path)}: {reason}", line)
    return tuple(dict.fromkeys(path for path, _ in found))


def _pieces(value: str) -> list[str]:
    lines = [line.strip().removeprefix("- ").strip() for line in value.splitlines()]
    if len(lines) == 1:
        pieces = [piece.strip() for piece in lines[0].split(",")]
        if not any(re.search(r"\s", piece) for piece in pieces):
            lines = pieces
    return [line for line in lines if line]


def _items(node: Node) -> list[str]:
    """Return a list's items as text, without nulls."""
    if not isinstance(node, Sequence):
        raise Odd(f"it is {_kind(node)}, not a list", node.line)
    return [text(item) for item in node.items if not _is_null(item)]


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.null


def _kind(node: Node) -> str:
    if isinstance(node, Mapping):
        return "a mapping"
    return "a list" if isinstance(node, Sequence) else "a single value"
