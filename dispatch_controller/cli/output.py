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
from rich.table import Column, Table
from rich.text import Text

STYLES = {
    "pending": "yellow",
    "claimed": "cyan",
    "running": "bold cyan",
    "completed": "green",
    "failed": "red",
    "deadletter": "bold red",
}

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
    if isinstance(value, list):
        value = ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        value = ", ".join(f"{key}: {clean(inner)}" for key, inner in value.items())
    return Text(" ".join(clean(value).split()), style)


def time_cell(value: object) -> Text:
    """Return a time (ISO 8601 or Unix seconds) in UTC, to the second."""
    if isinstance(value, int | float):
        value = datetime.fromtimestamp(value, UTC).isoformat()
    text = re.sub(r"(\d)T(\d\d:\d\d:\d\d)(\.\d+)?(\+00:00|Z)$", r"\1 \2Z", str(value or ""))
    return cell(text, "dim")


def status_cell(status: object) -> Text:
    return cell(status, STYLES.get(str(status), ""))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[Text]]) -> None:
    """Print rows under headings: a table on a terminal, plain columns when piped or very long."""
    lines = list(rows)
    console = stdout()
    if not console.is_terminal or len(lines) > LONG:
        _print_columns([[Text(heading) for heading in headings], *lines])
        return
    columns = [Column(heading, overflow="fold") for heading in headings]
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for line in lines:
        table.add_row(*line)
    console.print(table)


def _print_columns(lines: Sequence[Sequence[Text]]) -> None:
    widths = [max(cell.cell_len for cell in column) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (
            cell.plain + " " * (width - cell.cell_len)
            for cell, width in zip(line, widths, strict=True)
        )
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


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
