"""Front matter: the YAML block at the head of a Markdown file, as nodes that know their lines.

Values stay as the file writes them (`007` is not 7, `2026-02-17` is not a date), because ids are
compared that way. Read from the parser's events, so no depth, alias or tag of a hostile file
builds anything: aliases, anchors and tags are refused, depth and size are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

LIMIT = 64 * 1024
"""Characters of a front matter at most."""

_DEEPEST = 12
_OPENING = re.compile(r"(?:[ \t]*\n)*-{3,}[ \t]*(?:\n|\Z)")
_CLOSING = re.compile(r"^-{3,}[ \t]*$", re.MULTILINE)
_NOT_PRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff]")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_LOADER: type[yaml.SafeLoader | yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class FrontMatterError(Exception):
    """The block cannot be read. `line` counts from 1 in the file."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Scalar:
    text: str
    line: int
    plain: bool = True
    """Not quoted and not a block."""

    @property
    def null(self) -> bool:
        return self.plain and self.text in _NULLS


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Mapping:
    pairs: tuple[tuple[Node, Node], ...]
    line: int


Node = Scalar | Sequence | Mapping


@dataclass(frozen=True, slots=True)
class Block:
    """A front matter's text, the line of the file it starts at, and what follows it."""

    text: str
    line: int
    closed: bool
    body: str


def split(text: str) -> Block | None:
    """Return the front matter of a text whose line ends are `\\n`, or None where it has none."""
    opening = _OPENING.match(text)
    if opening is None:
        return None
    line = opening.group().rstrip().count("\n") + 2
    closing = _CLOSING.search(text, opening.end())
    if closing is None:
        return Block(text[opening.end() :], line, False, "")
    inside = text[opening.end() : closing.start()]
    return Block(inside, line, True, text[closing.end() :].lstrip("\n"))


def load(block: Block) -> dict[str, tuple[int, Node]] | None:
    """Return key -> (line of the key, value) of a closed block.

    None where the block is no mapping: text between two horizontal rules, say. Raises
    FrontMatterError with the line and what to do.
    """
    if len(block.text) > LIMIT:
        raise FrontMatterError(
            block.line,
            f"front matter has {len(block.text)} characters, more than {LIMIT}; move text below it",
        )
    odd = _NOT_PRINTABLE.search(block.text)
    if odd is not None:
        line = block.line + block.text.count("\n", 0, odd.start())
        raise FrontMatterError(line, f"control character U+{ord(odd.group()):04X} in front matter")
    try:
        root = _build(yaml.parse(block.text, Loader=_LOADER), block.line)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = block.line + (mark.line if mark is not None else 0)
        problem = error.problem or error.context or "it cannot be parsed"
        tab = "tab" in problem or "\\t" in problem
        hint = "; use spaces, not tabs" if tab else "; quote values that hold : or #"
        raise FrontMatterError(line, f"front matter is not valid YAML: {problem}{hint}") from error
    except yaml.YAMLError as error:
        raise FrontMatterError(block.line, f"front matter is not valid YAML: {error}") from error
    if root is None or (isinstance(root, Scalar) and root.null):
        return {}
    return _keys(root) if isinstance(root, Mapping) else None


def _keys(root: Mapping) -> dict[str, tuple[int, Node]]:
    found: dict[str, tuple[int, Node]] = {}
    for key, value in root.pairs:
        if not isinstance(key, Scalar):
            continue
        if key.text in found:
            first = found[key.text][0]
            reason = f"key {key.text!r} stands twice, first in line {first}; remove one of them"
            raise FrontMatterError(key.line, reason)
        found[key.text] = (key.line, value)
    return found


def _build(events: Iterator[yaml.Event], first_line: int) -> Node | None:
    """Return the one root node of the events, or None for an empty stream."""
    root: Node | None = None
    stack: list[tuple[type[Sequence | Mapping], list[Node], int]] = []
    for event in events:
        line = first_line + (event.start_mark.line if event.start_mark is not None else 0)
        _refuse(event, line)
        node: Node
        match event:
            case yaml.ScalarEvent():
                node = Scalar(event.value, line, plain=event.implicit[0])
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                if len(stack) == _DEEPEST:
                    raise FrontMatterError(line, f"front matter nests deeper than {_DEEPEST}")
                kind = Sequence if isinstance(event, yaml.SequenceStartEvent) else Mapping
                stack.append((kind, [], line))
                continue
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                kind, children, line = stack.pop()
                if kind is Sequence:
                    node = Sequence(tuple(children), line)
                else:
                    node = Mapping(tuple(zip(children[::2], children[1::2], strict=True)), line)
            case _:
                continue
        if stack:
            stack[-1][1].append(node)
        elif root is None:
            root = node
        else:
            raise FrontMatterError(line, "front matter holds a second YAML document; remove it")
    return root


def _refuse(event: yaml.Event, line: int) -> None:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        raise FrontMatterError(
            line, "anchors and aliases (& and *) are not allowed; quote a value that starts so"
        )
    tag = getattr(event, "tag", None)
    if tag is not None:
        raise FrontMatterError(line, f"YAML tags ({tag}) are not allowed; quote the value instead")
