"""The events as they happen, for any number of listeners at the cost of one.

There is no task behind it: whoever waits looks, and the others share what was found. Nobody looks
while nobody listens.
"""

from __future__ import annotations

from collections import deque

import trio

from dispatch_controller.store import events
from dispatch_controller.store.events import Event
from dispatch_controller.store.store import Store

SHARED = 2000
"""Newest events kept in memory."""
PAGE = 500
OFTEN = 0.1
"""Seconds between two looks at the most: what happens meanwhile comes together."""
SELDOM = 5.0
"""Seconds after which is looked although this process wrote nothing: others write too."""


class News:
    """Hands out events by id."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recent: deque[Event] = deque(maxlen=SHARED)
        self._newest: int | None = None
        self._looked_at = -SELDOM
        self._seen_commit: trio.Event | None = None
        self._lock = trio.Lock()

    async def newest(self) -> int:
        """Return the id of the newest event."""
        return await self._store.read(events.last_id)

    async def after(self, last: int) -> list[Event]:
        """Return events with ids above `last`, oldest first, as soon as there are any."""
        while True:
            commit = self._store.next_commit
            async with self._lock:
                found = await self._look(last, commit)
            if found:
                return found
            with trio.move_on_after(SELDOM):
                await commit.wait()

    async def _look(self, last: int, commit: trio.Event) -> list[Event]:
        if self._newest is None or last < self._oldest():
            # Before what is shared: its own read, and the shared part begins where that ends.
            found = await self._store.read(events.since, last, PAGE)
            if self._newest is None:
                self._newest = found[-1].id if found else last
                self._recent.extend(found)
            return found
        if last > self._newest:
            self._recent.clear()  # nobody listened for a while: the gap is nobody's
            self._newest = last
        if last == self._newest:
            await self._refresh(commit)
        return [event for event in self._recent if event.id > last][:PAGE]

    def _oldest(self) -> int:
        """The least id that the shared events can be asked after."""
        return self._recent[0].id - 1 if self._recent else self._newest or 0

    async def _refresh(self, commit: trio.Event) -> None:
        """Read what is new, unless nothing can be."""
        now = trio.current_time()
        if self._seen_commit is commit and now - self._looked_at < SELDOM:
            return
        await trio.sleep(max(0.0, self._looked_at + OFTEN - now))
        commit = self._store.next_commit
        found = await self._store.read(events.since, self._newest or 0, PAGE)
        self._looked_at = trio.current_time()
        if len(found) < PAGE:
            self._seen_commit = commit
        if found:
            self._newest = found[-1].id
            self._recent.extend(found)
