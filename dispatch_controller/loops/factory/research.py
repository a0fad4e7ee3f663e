"""research_and_discover: sources are read hourly, what is new becomes notes of the projects."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from dispatch_controller.core import ledger
from dispatch_controller.core.times import iso
from dispatch_controller.factory import notes
from dispatch_controller.factory.feeds import Item
from dispatch_controller.factory.files import read_json, write_json
from dispatch_controller.factory.sources import Fetch, Fetched, SourceFailed
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.factory.memory import Memory
from dispatch_controller.loops.factory.projects import Projects
from dispatch_controller.settings_sections import Source

MOST_NEW = 20
"""New items of one source that go into one note."""
MOST_SEEN = 20_000
"""Items of one source that are remembered."""


@dataclass(slots=True)
class _State:
    """What is remembered of one source between two researches."""

    etag: str | None = None
    modified: str | None = None
    seen: list[str] = field(default_factory=list)
    failing: str | None = None
    """What was told of its failure."""

    @classmethod
    def read(cls, data: object) -> _State:
        known: Mapping[str, Any] = data if isinstance(data, dict) else {}
        etag, modified, failing = known.get("etag"), known.get("modified"), known.get("failing")
        seen = known.get("seen")
        return cls(
            etag if isinstance(etag, str) else None,
            modified if isinstance(modified, str) else None,
            [item for item in seen if isinstance(item, str)] if isinstance(seen, list) else [],
            failing if isinstance(failing, str) else None,
        )

    def written(self) -> dict[str, Any]:
        return {
            "etag": self.etag,
            "modified": self.modified,
            "seen": self.seen,
            "failing": self.failing,
        }


class Research:
    """Keeps `<home>/factory/research.json`: when the next one is due, and what was seen."""

    def __init__(self, context: Context, projects: Projects, memory: Memory, fetch: Fetch) -> None:
        self._context = context
        self._fetch = fetch
        self._projects = projects
        self._memory = memory
        self.file = context.settings.home / "factory" / "research.json"

    async def due(self) -> float:
        """Return when the next research is due, Unix seconds; 0.0 before the first one."""
        at = (await self._context.run_sync(read_json, self.file)).get("due")
        return float(at) if isinstance(at, int | float) and math.isfinite(at) else 0.0

    async def step(self) -> int:
        """Do the research if it is due; return how many new items there were.

        The due times lie a fixed interval apart whatever a step takes and whenever the controller
        was down; times that passed meanwhile are not made up for.
        """
        context = self._context
        sources = context.settings.factory.sources
        now, interval = context.clock.wall(), context.settings.factory.research_interval
        data = await context.run_sync(read_json, self.file)
        due = await self.due()
        if due > now + interval:  # the clock was set back
            due = 0.0
        if not sources or not self._projects.entries or now < due:
            return 0
        following = now + interval
        if due:
            following = due + interval * (math.floor((now - due) / interval) + 1)
        known = data.get("sources")
        known = known if isinstance(known, dict) else {}
        states = {name: _State.read(known.get(name)) for name in sources}
        # Written first, so that a controller that dies of a source does not ask it again at once.
        await self._keep(following, states)
        new = await self._fetch_all(sources, states)
        await self._write_notes(sources, new)
        await self._keep(following, states)
        count = sum(map(len, new.values()))
        await self._memory.tell(
            ledger.RESEARCH, new={name: len(items) for name, items in new.items() if items}
        )
        return count

    async def _keep(self, due: float, states: Mapping[str, _State]) -> None:
        sources = {name: state.written() for name, state in states.items()}
        await self._context.run_sync(write_json, self.file, {"due": due, "sources": sources})

    async def _fetch_all(
        self, sources: Mapping[str, Source], states: Mapping[str, _State]
    ) -> dict[str, list[Item]]:
        """Ask all sources at once; return what is new of each, in the order of the settings."""
        answers: dict[str, Fetched | SourceFailed] = {}

        async def ask(name: str, source: Source, state: _State) -> None:
            try:
                answers[name] = await self._fetch(
                    source, self._context.run_sync, state.etag, state.modified
                )
            except SourceFailed as failed:
                answers[name] = failed

        async with trio.open_nursery() as nursery:
            for name, source in sources.items():
                nursery.start_soon(ask, name, source, states[name], name=f"source {name}")
        new: dict[str, list[Item]] = {}
        for name in sources:
            answer, state = answers[name], states[name]
            if isinstance(answer, SourceFailed):
                await self._failed(name, state, str(answer))
            else:
                new[name] = self._new(answer, state)
                await self._works(name, state)
        return new

    def _new(self, answer: Fetched, state: _State) -> list[Item]:
        """Return the items not seen before, and remember them."""
        state.etag, state.modified = answer.etag, answer.modified
        before, new = set(state.seen), []
        for item in answer.items:
            mark = hashlib.sha256(item.id.encode("utf-8", "replace")).hexdigest()[:16]
            if mark not in before:
                before.add(mark)
                state.seen.append(mark)
                new.append(item)
        state.seen = state.seen[-MOST_SEEN:]
        return new[:MOST_NEW]

    async def _failed(self, name: str, state: _State, why: str) -> None:
        """Tell a failure once, while it stands."""
        if state.failing is None:
            await self._memory.tell(ledger.SOURCE, source=name, state="failing", reason=why)
        state.failing = why

    async def _works(self, name: str, state: _State) -> None:
        if state.failing is not None:
            await self._memory.tell(ledger.SOURCE, source=name, state="answers again")
        state.failing = None

    async def _write_notes(
        self, sources: Mapping[str, Source], new: Mapping[str, list[Item]]
    ) -> None:
        """Write each project's note of what is new in its sources."""
        now = iso(self._context.clock.wall())
        for project, entry in sorted(self._projects.entries.items()):
            own = {
                name: items
                for name, items in new.items()
                if items and (not sources[name].projects or project in sources[name].projects)
            }
            if own and entry.factory.enabled:
                await self._context.run_sync(_write, self._projects.folder(project), now, own)


def _write(folder: Path, now: str, found: Mapping[str, list[Item]]) -> None:
    try:
        notes.write(folder, now, found)
    except FileExistsError:
        return  # Written just before the controller was killed.
