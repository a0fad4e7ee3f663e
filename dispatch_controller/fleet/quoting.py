"""The one place where arguments become a remote shell's line."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def shell_line(argv: Sequence[str]) -> str:
    """Return the line that makes a POSIX shell run exactly `argv`.

    Everything is quoted. Only a leading `~/` stays outside the quotes, so that the login's home
    folder replaces it. Raises ValueError for no arguments and for a NUL, which no shell can carry.
    """
    if not argv:
        raise ValueError("no program to run")
    return " ".join(_word(argument) for argument in argv)


def _word(argument: str) -> str:
    if "\0" in argument:
        raise ValueError(f"an argument holds a NUL byte: {argument!r}")
    if argument.startswith("~/"):
        rest = argument[2:]
        return "~/" + (shlex.quote(rest) if rest else "")
    return shlex.quote(argument)
