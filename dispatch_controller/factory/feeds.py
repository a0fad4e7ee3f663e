"""RSS and Atom: bytes to items, whatever state they are in. Blocking."""

from __future__ import annotations

import html
import io
import re
from dataclasses import dataclass
from typing import Any

import feedparser

LARGEST = 5 * 1024 * 1024
"""Bytes of a feed at most."""
MOST_ITEMS = 500
"""Items of a feed that are looked at: its first ones, which by custom are the newest."""

_SUBSET = re.compile(rb"<!DOCTYPE[^>\[]{0,2000}\[", re.IGNORECASE)
_ITEM = re.compile(rb"<(?:\w+:)?(item|entry)[\s>]", re.IGNORECASE)
_TAG = re.compile(r"<[^>]{0,2000}>")
_SPACE = re.compile(r"\s+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")


class FeedRefused(Exception):
    """It is no feed, or one that had better not be read."""


@dataclass(frozen=True, slots=True)
class Item:
    """Something that a source tells of. All text is one line, without markup."""

    id: str
    title: str
    link: str = ""
    summary: str = ""
    date: str = ""
    """As the source writes it; many write none."""


def parse(content: bytes, content_type: str = "") -> list[Item]:
    """Return the items of a feed, first ones first. Raises FeedRefused.

    A document type with declarations of its own is refused unread: it is how entity bombs are
    made, and feeds do without.
    """
    if len(content) > LARGEST:
        raise FeedRefused(f"it is larger than {LARGEST} bytes")
    # Two-byte encodings are the same characters with zeros between them.
    if _SUBSET.search(content[:65536].replace(b"\0", b"")):
        raise FeedRefused("it declares entities of its own, as entity bombs do")
    headers = {"content-type": content_type} if content_type else {}
    found: Any = feedparser.parse(
        io.BytesIO(_first_items(content)),
        response_headers=headers,
        sanitize_html=False,
        resolve_relative_uris=False,
    )
    if not found.get("version") and not found.entries:
        raise FeedRefused("it is neither RSS nor Atom")
    return [item for entry in found.entries[:MOST_ITEMS] if (item := _item(entry)) is not None]


def _first_items(content: bytes) -> bytes:
    """Cut a feed with a great many items after the first ones; the parser takes what is open."""
    for number, found in enumerate(_ITEM.finditer(content)):
        if number == MOST_ITEMS:
            return content[: found.start()]
    return content


def _item(entry: Any) -> Item | None:  # noqa: ANN401
    title, link = line(entry.get("title", ""), 200), line(entry.get("link", ""), 500)
    name = str(entry.get("id") or link or title)
    if not name:
        return None
    return Item(
        id=name,
        title=title or link or name[:200],
        link=link if link.startswith(("http://", "https://")) else "",
        summary=line(entry.get("summary", ""), 300),
        date=line(entry.get("published") or entry.get("updated") or "", 60),
    )


def line(text: object, longest: int) -> str:
    """Return a text as one line without markup, cut."""
    plain = html.unescape(_TAG.sub(" ", str(text)[: 20 * longest]))
    plain = _SPACE.sub(" ", _CONTROL.sub(" ", plain)).strip()
    return plain if len(plain) <= longest else plain[: longest - 1].rstrip() + "…"
