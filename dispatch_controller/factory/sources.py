"""Where research looks: feeds, GitHub search, a command. Each gives its items, or says why not."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Protocol

from dispatch_controller.factory import feeds
from dispatch_controller.factory.endpoint import load, pick, text_of
from dispatch_controller.factory.feeds import FeedRefused, Item, line
from dispatch_controller.factory.http import Unreachable, exchange
from dispatch_controller.factory.programs import run_program
from dispatch_controller.runtime.threads import RunSync
from dispatch_controller.settings_sections import Source

TIMEOUT = 20.0
"""Seconds for one source."""
GITHUB = "https://api.github.com"
TOKEN = "GITHUB_TOKEN"  # noqa: S105 - the variable's name
_OUTPUT_LIMIT = 256 * 1024


class SourceFailed(Exception):
    """It gave nothing; the text says why."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a source gave. `etag` and `modified` are for the next, conditional, request."""

    items: list[Item] = field(default_factory=list)
    etag: str | None = None
    modified: str | None = None
    changed: bool = True


class Fetch(Protocol):
    """`fetch`, or what stands in for the network where there is none."""

    async def __call__(
        self,
        source: Source,
        run_sync: RunSync,
        etag: str | None = None,
        modified: str | None = None,
    ) -> Fetched: ...


async def fetch(
    source: Source, run_sync: RunSync, etag: str | None = None, modified: str | None = None
) -> Fetched:
    """Return what a source says now. Raises SourceFailed."""
    if source.kind == "command":
        return await _command(source)
    url, params, headers = _request(source)
    if etag:
        headers["if-none-match"] = etag
    if modified:
        headers["if-modified-since"] = modified
    try:
        reply = await exchange(
            "GET",
            url,
            timeout=TIMEOUT,
            limit=feeds.LARGEST,
            headers=headers,
            params=params,
            redirects="authorization" not in headers,
        )
    except Unreachable as error:
        raise SourceFailed(f"{url} {error}") from error
    if reply.status == 304:
        return Fetched([], etag, modified, changed=False)
    if reply.status != 200 or reply.broken is not None:
        raise SourceFailed(f"{url} answered {reply.status}, {reply.broken or 'nothing to read'}")
    got = reply.headers
    try:
        if source.kind == "feed":
            items = await run_sync(feeds.parse, reply.body, got.get("content-type", ""))
        else:
            items = await run_sync(_found, reply.body)
    except FeedRefused as error:
        raise SourceFailed(f"{url}: {error}") from error
    return Fetched(items, got.get("etag"), got.get("last-modified"))


def _request(source: Source) -> tuple[str, dict[str, str], dict[str, str]]:
    headers = {"user-agent": "dispatch-controller"}
    if source.kind == "feed":
        return str(source.url), {}, headers
    url = f"{(source.url or GITHUB).rstrip('/')}/search/{source.search}"
    headers["accept"] = "application/vnd.github+json"
    token = os.environ.get(TOKEN, "").strip()
    if token:
        headers["authorization"] = f"Bearer {token}"
    return url, {"q": source.query or "", "sort": "updated", "per_page": "30"}, headers


def _found(content: bytes) -> list[Item]:
    """Return what a GitHub search found. Raises FeedRefused."""
    rows = load(content).get("items")
    if not isinstance(rows, list):
        raise FeedRefused("it is no answer of a GitHub search")
    found = []
    for row in rows[: feeds.MOST_ITEMS]:
        link = line(text_of(pick(row, "html_url")), 500)
        title = line(text_of(pick(row, "full_name")) or text_of(pick(row, "title")), 200)
        if link and title:
            about = text_of(pick(row, "description")) or text_of(pick(row, "body"))
            date = line(text_of(pick(row, "updated_at")), 60)
            found.append(Item(link, title, link, line(about, 300), date))
    return found


async def _command(source: Source) -> Fetched:
    """Run the program: one item a line, title, tab, address."""
    name = source.argv[0]
    try:
        ran = await run_program(source.argv, timeout=TIMEOUT, limit=_OUTPUT_LIMIT)
    except OSError as error:
        raise SourceFailed(f"{name} cannot be run: {error}") from error
    if ran.code != 0:
        ended = f"ended with exit code {ran.code}" if ran.code is not None else "took too much"
        raise SourceFailed(f"{name} {ended}")
    items = []
    for row in ran.output.splitlines()[: feeds.MOST_ITEMS]:
        title, _, link = row.partition("\t")
        item = Item("", line(title, 200), line(link, 500))
        if item.title:
            items.append(replace(item, id=item.link or item.title))
    return Fetched(items)
