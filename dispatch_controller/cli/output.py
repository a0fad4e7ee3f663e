"""What commands print: tables and colour for people on a terminal, plain columns when piped, JSON.

Text that came from a task, a log or a node is data: it is never read as markup, and its control
characters never reach the terminal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {
    "pending": "yellow",
    "claimed": "cyan",
    "running": "bold cyan",
    "completed": "green",
    "failed": "red",
    "deadletter": "bold red",
}

NARROW = 12
"""Columns of the terminal under which no column of a table is folded."""
LONG = 1000
"""Rows from which on a table would take seconds to lay out."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def stdout() -> Console:
    """Return the console for results. Piped lines are as wide as they need to be."""
    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=10_000)


def stderr() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def complain(message: str) -> None:
    """Print what went wrong on standard error."""
    stderr().print(Text(clean(message), "red"))


def print_json(value: Any) -> None:  # noqa: ANN401
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def clean(text: object) -> str:
    """Return `text` without escape sequences and control characters but newline and tab."""
    return _CONTROL.sub("", _ESCAPE.sub("", str(text)))


def log_text(text: str, terminal: bool) -> str:
    """Return a piece of a log as it may be written: unchanged when piped, else only coloured."""
    if not terminal:
        return text
    parts: list[str] = []
    end = 0
    for colour in _COLOUR.finditer(text):
        parts += [clean(text[end : colour.start()]), colour.group()]
        end = colour.end()
    return "".join([*parts, clean(text[end:])])


def cell(value: object, style: str = "") -> Text:
    """Return a value for a table: one line, empty for None."""
    if value is None:
        return Text("")
    if isinstance(value, float):
        value = f"{value:g}"
    return Text(" ".join(clean(_said(value)).split()), style)


def _said(value: object, inside: bool = False) -> str:
    """Return a value of JSON as people read it: nothing for null, and no brackets around all."""
    if value is None:
        return "none" if inside else ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        text = ", ".join(_said(item, inside=True) for item in value)
        return f"[{text}]" if inside else text
    if isinstance(value, dict):
        text = ", ".join(f"{key}: {_said(item, inside=True)}" for key, item in value.items())
        return f"({text})" if inside else text
    return str(value)


def time_cell(value: object) -> Text:
    """Return a time (ISO 8601 or Unix seconds) in UTC, to the second."""
    if isinstance(value, int | float):
        value = datetime.fromtimestamp(value, UTC).isoformat()
    text = re.sub(r"(\d)T(\d\d:\d\d:\d\d)(\.\d+)?(\+00:00|Z)$", r"\1 \2Z", str(value or ""))
    return cell(text, "dim")


def status_cell(status: object) -> Text:
    return cell(status, STYLES.get(str(status), ""))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[Text]]) -> None:
    """Print rows under headings: a table on a terminal that has room for it, else plain columns.

    Those are for programs, for very long lists, and for a terminal so narrow that a table would
    break words into letters.
    """
    lines = list(rows)
    console = stdout()
    widths = _widths([[Text(heading) for heading in headings], *lines])
    room = sum(min(width, NARROW) + _GAP for width in widths) <= console.width
    if not console.is_terminal or len(lines) > LONG or not room:
        _print_columns([[Text(heading) for heading in headings], *lines], widths)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    shown = [place for place, width in enumerate(widths) if width]
    for place in shown:
        table.add_column(headings[place], overflow="fold", no_wrap=widths[place] <= NARROW)
    for line in lines:
        table.add_row(*(line[place] for place in shown))
    console.print(table)


_GAP = 2


def _widths(lines: Sequence[Sequence[Text]]) -> list[int]:
    return [max(cell.cell_len for cell in column) for column in zip(*lines, strict=True)]


def _print_columns(lines: Sequence[Sequence[Text]], widths: Sequence[int]) -> None:
    for line in lines:
        padded = (
            cell.plain + " " * (width - cell.cell_len)
            for cell, width in zip(line, widths, strict=True)
        )
        sys.stdout.write((" " * _GAP).join(padded).rstrip() + "\n")


def short_duration(seconds: float | None) -> str:
    """Return seconds as people say them: 45s, 12m, 3h 5m, 2d 4h."""
    if seconds is None:
        return ""
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole % 86400 // 3600, whole % 3600 // 60
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m" if minutes else f"{whole}s"


def counted(number: int, what: str) -> str:
    """Return `1 task`, `2 tasks`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
