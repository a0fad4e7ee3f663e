"""A home with projects, a store and the factory; no loop but the one that a test runs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from conftest import run_inline
from dispatch_controller.catalog import SpecCatalog
from dispatch_controller.core.times import iso
from dispatch_controller.factory.sources import Fetch, fetch
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.factory import Factory
from dispatch_controller.loops.registrar import Registrar
from dispatch_controller.model import Node, Task
from dispatch_controller.runtime.clock import Clock, ClockWatch, TrioClock
from dispatch_controller.runtime.threads import RunSync, in_thread
from dispatch_controller.settings import Settings
from dispatch_controller.store import events, tasks
from dispatch_controller.store.connection import get_db
from dispatch_controller.store.events import Event
from dispatch_controller.store.schema import prepare
from dispatch_controller.store.store import Store

EPOCH = 1_790_000_000.0


class HandClock:
    """Wall time that a test moves; Trio's own clock stays the real one."""

    def __init__(self) -> None:
        self.now = EPOCH

    def wall(self) -> float:
        return self.now


class _NoFleet:
    def transport(self, node: str) -> None:
        return None

    async def sync(self, nodes: list[Node]) -> None:
        raise NotImplementedError

    async def check_connection(self, name: str) -> float:
        raise NotImplementedError

    def reconnect(self, name: str) -> None:
        raise NotImplementedError

    def wrapper_of(self, name: str) -> str | None:
        raise NotImplementedError

    def update(self, nodes: object) -> None:
        raise NotImplementedError


class Bench:
    """What a test works with. `restart` is a new controller process over the same home."""

    def __init__(
        self,
        home: Path,
        store: Store,
        clock: Clock,
        run_sync: RunSync,
        **factory: Any,  # noqa: ANN401
    ) -> None:
        self.home = home
        self.store = store
        self.clock = clock
        self._run_sync = run_sync
        self.settings = Settings.model_validate({"home": home, "factory": factory})
        self.projects: dict[str, Any] = {}
        self.fetch: Fetch = fetch
        self.restart()

    def restart(self) -> None:
        context = Context(
            store=self.store,
            fleet=_NoFleet(),  # type: ignore[arg-type, unused-ignore]
            settings=self.settings,
            clock=self.clock,
            watch=ClockWatch(self.clock),
            run_sync=self._run_sync,
            catalog=SpecCatalog(self.home),
            rng=random.Random(1),
            token=lambda: "00000000",
        )
        self.context = context
        self.registrar = Registrar(context)
        self.factory = Factory(context, self.registrar, self.fetch)

    def project(self, name: str, **entry: Any) -> Path:  # noqa: ANN401
        """Add a project with an empty checkout to projects.json; return the checkout."""
        checkout = self.home / "projects" / name
        checkout.mkdir(parents=True, exist_ok=True)
        self.projects[name] = {"repo_local": str(checkout), **entry}
        (self.home / "projects.json").write_text(json.dumps(self.projects))
        return checkout

    async def spec(self, project: str, task_id: str, **fields: Any) -> None:  # noqa: ANN401
        """Register a hand-written spec; `body` is its text, `columns` what its row is to say."""
        columns, body = fields.pop("columns", {}), fields.pop("body", f"# {task_id}\n\nDo it.\n")
        fields = {"task_id": task_id, "modifies": ["a.py"], **fields}
        folder = self.settings.specs / project
        folder.mkdir(parents=True, exist_ok=True)
        head = "\n".join(f"{key}: {json.dumps(value)}" for key, value in fields.items())
        path = folder / f"{task_id}.md"
        path.write_text(f"---\n{head}\n---\n\n{body}")
        report = await self.registrar.register([path], project)
        assert not report["errors"], report
        self.set(task_id, **columns)

    def set(self, task_id: str, **columns: Any) -> None:  # noqa: ANN401
        """Make a row say something, as other loops would."""
        columns.setdefault("updated_at", int(self.clock.wall()))
        if columns.get("status") in ("completed", "failed", "deadletter"):
            columns.setdefault("completed_at", iso(self.clock.wall()))
        names = ", ".join(f"{name} = ?" for name in columns)
        with get_db(self.store.path) as conn:
            conn.execute(f"UPDATE tasks SET {names} WHERE id = ?", (*columns.values(), task_id))

    async def cycle(self) -> list[dict[str, Any]]:
        """One step of the loop as the loop does it."""
        await self.factory.step(1)
        return list(self.factory._done)

    def tasks(self, project: str | None = None) -> list[Task]:
        with get_db(self.store.path) as conn:
            rows = conn.execute("SELECT * FROM tasks ORDER BY id").fetchall()
            return [tasks.task_from(row) for row in rows if project in (None, row["project"])]

    def generated(self, project: str | None = None) -> list[str]:
        return [task.id for task in self.tasks(project) if task.id.startswith("G")]

    def events(self, event_type: str) -> list[Event]:
        with get_db(self.store.path) as conn:
            found = events.since(conn, 0, 1_000_000)  # type: ignore[arg-type, unused-ignore]
        return [event for event in found if event.event_type == event_type]

    def file(self, project: str, task_id: str) -> str:
        return (self.settings.specs / project / f"{task_id}.md").read_text()


MakeBench = Callable[..., Bench]


@pytest.fixture
async def bench(tmp_path: Path, nursery: trio.Nursery) -> MakeBench:
    """Make a bench with real threads and a clock that the test moves."""
    prepare(tmp_path / "dispatch.db")
    store = Store(tmp_path / "dispatch.db", in_thread)
    await nursery.start(store.run)
    return lambda **factory: Bench(tmp_path, store, HandClock(), in_thread, **factory)


@pytest.fixture
async def mock_bench(tmp_path: Path, nursery: trio.Nursery) -> MakeBench:
    """Make a bench for the mock clock: the test itself has to ask for `autojump_clock`."""
    prepare(tmp_path / "dispatch.db")
    store = Store(tmp_path / "dispatch.db", run_inline)
    await nursery.start(store.run)
    return lambda **factory: Bench(tmp_path, store, TrioClock(EPOCH), run_inline, **factory)
