"""Research notes: short Markdown files in a project's spec folder. Blocking."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dispatch_controller.factory.feeds import Item
from dispatch_controller.factory.files import write_new

FOLDER = "research"
MOST_NOTES = 48
"""Note files that are kept for a project; the oldest ones go."""
_LATEST = 3
_MARKDOWN = re.compile(r"([\\`*_\[\]<>])")
_LINK = re.compile(r"https?://[^\s)>\]\"']+")


def write(specs: Path, now: str, found: Mapping[str, Sequence[Item]]) -> Path:
    """Write what is new, by source; return the file. `now` is ISO 8601. Raises OSError."""
    lines = [f"# Research notes of {now[:16]}", "", "Found by the factory; nobody checked it.", ""]
    for name, items in found.items():
        lines += [f"## {_plain(name)}", ""]
        for item in items:
            date = f" ({_plain(item.date)})" if item.date else ""
            summary = f": {_plain(item.summary)}" if item.summary else ""
            link = f" <{item.link}>" if item.link else ""
            lines.append(f"- {_plain(item.title)}{date}{link}{summary}")
        lines.append("")
    path = specs / FOLDER / f"{re.sub('[^0-9]', '', now)[:14]}.md"
    write_new(path, "\n".join(lines))
    for old in files(specs)[:-MOST_NOTES]:
        old.unlink(missing_ok=True)
    return path


def files(specs: Path) -> list[Path]:
    """Return the note files, oldest first."""
    return sorted((specs / FOLDER).glob("[0-9]*.md"))


def latest(specs: Path) -> str:
    """Return the newest notes, newest first; nothing where there are none."""
    texts = []
    for path in reversed(files(specs)[-_LATEST:]):
        try:
            texts.append(path.read_text("utf-8", errors="replace")[:8000])
        except OSError:
            continue
    return "\n".join(texts)


def links(text: str) -> frozenset[str]:
    """Return the addresses that notes name."""
    return frozenset(link.rstrip(".,;") for link in _LINK.findall(text))


def _plain(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)
