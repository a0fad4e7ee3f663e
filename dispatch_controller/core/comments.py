"""Comments in source text: Python by its own tokens, other languages by their simple syntax.

Strings are told from comments, so that a marker inside one is not taken for a remark of a person.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class Comment:
    line: int
    """Counts from 1."""
    text: str
    """One line of the comment, without its marks."""


@dataclass(frozen=True, slots=True)
class Syntax:
    line: tuple[str, ...] = ()
    block: tuple[tuple[str, str], ...] = ()
    quotes: str = ""
    """Delimiters of strings that end on their line, backslash escaping."""
    long_quotes: tuple[str, ...] = ()
    """Delimiters of strings that may span lines."""
    spaced: bool = False
    """A line comment counts only at the start of a line or after white space."""


_C = Syntax(("//",), (("/*", "*/"),), "\"'", ("`", '"""'))
_CSS = Syntax((), (("/*", "*/"),), "\"'")
_HASH = Syntax(("#",), (), "\"'", spaced=True)
_TOML = Syntax(("#",), (), "\"'", ('"""', "'''"))
_SQL = Syntax(("--",), (("/*", "*/"),), "\"'")
_LUA = Syntax(("--",), (("--[[", "]]"),), "\"'")
_HASKELL = Syntax(("--",), (("{-", "-}"),), '"', spaced=True)
_PHP = Syntax(("//", "#"), (("/*", "*/"),), "\"'")
_MARKUP = Syntax((), (("<!--", "-->"),))
_LISP = Syntax((";",), (), '"')
_TEX = Syntax(("%",), (), "")
_PAGE = Syntax(("//",), (("/*", "*/"), ("<!--", "-->")), "\"'", ("`",), spaced=True)

_BY_SUFFIX = {
    suffix: syntax
    for syntax, suffixes in (
        (_C, "c h cc cpp cxx hh hpp cs java js jsx mjs cjs ts tsx go rs swift kt kts scala dart"
             " proto groovy gradle m mm zig scss less"),
        (_CSS, "css"),
        (_HASH, "sh bash zsh fish rb pl pm yml yaml r ex exs nix tf cfg conf jl mk cmake ps1"),
        (_TOML, "toml"),
        (_SQL, "sql"),
        (_LUA, "lua"),
        (_HASKELL, "hs elm"),
        (_PHP, "php"),
        (_MARKUP, "html htm xml md svg"),
        (_PAGE, "vue svelte"),
        (_LISP, "lisp el clj cljs scm ini"),
        (_TEX, "tex"),
    )
    for suffix in suffixes.split()
}  # fmt: skip
_BY_NAME = dict.fromkeys(
    ("makefile", "gnumakefile", "dockerfile", "justfile", "gemfile", "rakefile", "cmakelists.txt"),
    _HASH,
)


def known(path: str) -> bool:
    """Whether comments of a file of that name can be read."""
    return PurePosixPath(path).suffix in (".py", ".pyi") or _syntax(path) is not None


def comments(path: str, text: str) -> Iterator[Comment]:
    """Yield the comments of a file, line by line; of what cannot be read, those up to there."""
    if PurePosixPath(path).suffix in (".py", ".pyi"):
        yield from _python(text)
        return
    syntax = _syntax(path)
    if syntax is not None:
        yield from _scan(text, syntax)


def _syntax(path: str) -> Syntax | None:
    name = PurePosixPath(path)
    return _BY_NAME.get(name.name.lower()) or _BY_SUFFIX.get(name.suffix.lower().lstrip("."))


def _python(text: str) -> Iterator[Comment]:
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield Comment(token.start[0], token.string.lstrip("#").strip())
    except (tokenize.TokenError, SyntaxError, ValueError):
        return


@lru_cache
def _opening(syntax: Syntax) -> re.Pattern[str]:
    block = [re.escape(opening) for opening, _ in syntax.block]
    line = [re.escape(mark) for mark in syntax.line]
    if syntax.spaced:
        line = [rf"(?:(?<=\s)|^){mark}" for mark in line]
    quotes = [re.escape(mark) for mark in (*syntax.long_quotes, *syntax.quotes)]
    groups = (("block", block), ("line", line), ("quote", quotes))
    return re.compile(
        "|".join(f"(?P<{name}>{'|'.join(marks)})" for name, marks in groups if marks),
        re.MULTILINE,
    )


def _scan(text: str, syntax: Syntax) -> Iterator[Comment]:
    opening, closings = _opening(syntax), dict(syntax.block)
    position, line, counted = 0, 1, 0
    unclosed: dict[str, int] = {}
    while (found := opening.search(text, position)) is not None:
        line += text.count("\n", counted, found.start())
        counted = found.start()
        kind, mark = found.lastgroup, found.group()
        if kind == "quote":
            position = found.end()
            if position >= unclosed.get(mark, 0):
                long = mark in syntax.long_quotes
                newline = text.find("\n", position)
                limit = len(text) if long or newline < 0 else newline
                position = _after_string(text, position, mark, limit)
                if position == found.end():  # an apostrophe: there is no end up to the limit
                    unclosed[mark] = limit
            continue
        if kind == "line":
            end = text.find("\n", found.end())
            end = len(text) if end < 0 else end
            yield Comment(line, text[found.end() : end].lstrip("/#-;!%").strip())
            position = end
            continue
        end = text.find(closings[mark], found.end())
        inside = text[found.end() : end if end >= 0 else len(text)]
        for number, part in enumerate(inside.split("\n")):
            yield Comment(line + number, part.strip().lstrip("*").strip())
        position = len(text) if end < 0 else end + len(closings[mark])


def _after_string(text: str, start: int, mark: str, limit: int) -> int:
    """Return where the string ends; `start` where it does not before `limit`."""
    position = start
    while True:
        end = text.find(mark, position, limit)
        if end < 0:
            return start
        escapes = 0
        while end - escapes > start and text[end - escapes - 1] == "\\":
            escapes += 1
        if escapes % 2 == 0:
            return end + len(mark)
        position = end + 1
