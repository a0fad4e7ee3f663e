"""A controller's door in a thread of its own, so that a browser can be driven from the test's.

`Site.call` runs an async function there. Playwright's own loop and Trio's never share a thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import trio

from dispatch_controller.store import transitions
from dispatch_controller.store.transitions import Ending
from tests.fakes import Plan
from tests.web.serving import Serving, serving

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LIMIT = 60.0
"""Seconds for the controller to start, or to stop."""


class Site:
    """What runs in the other thread, and the way to it."""

    def __init__(self, door: Serving, token: trio.lowlevel.TrioToken) -> None:
        self.door = door
        self._token = token

    @property
    def url(self) -> str:
        return self.door.url

    def call(self, fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Run `fn` beside the controller; return what it returns."""
        return trio.from_thread.run(fn, *args, trio_token=self._token)

    def add_node(self, name: str, **columns: object) -> None:
        """Add a node that answers, with a machine in memory behind it."""
        door = self.door

        async def add() -> None:
            door.machines.add(name, lambda order: Plan(seconds=10_000, log="working\n"))
            await door.add_node(name, **columns)  # type: ignore[arg-type]
            door.context.knowledge.answered(name, door.context.clock.wall())

        self.call(add)

    def add_tasks(self, *ids: str, **more: object) -> None:
        async def add() -> None:
            await self.door.add_tasks(*ids, **more)  # type: ignore[arg-type]

        self.call(add)

    def run(self, *ids: str, **more: object) -> None:
        """Have new tasks running on the nodes there are."""
        self.add_tasks(*ids, **more)
        self.start()
        for task_id in ids:
            assert self.door.row(task_id)["status"] == "running"

    def start(self) -> None:
        """Run a pass, and record what the machines then say."""
        door = self.door

        async def go() -> None:
            await door.schedule()
            for machine in door.machines.nodes.values():
                await door.scheduling._recorder.record(machine.observations())

        self.call(go)

    def end(self, task_id: str, error: str | None = None, **details: object) -> None:
        """Record the end of a running task's attempt; with an error it failed."""
        row = self.door.row(task_id)
        store, now = self.door.context.store, self.door.context.clock.wall()

        async def write() -> bool:
            return await store.write(
                transitions.finish, now, task_id, row["lease_owner"], row["attempt"],
                Ending(error is None, error=error, duration_seconds=12.0),
                {"error": error, **details},
            )  # fmt: skip

        assert self.call(write)

    def do(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a plain function on the controller's thread."""
        return trio.from_thread.run_sync(fn, *args, trio_token=self._token)


@contextmanager
def site(home: Path, **settings: object) -> Iterator[Site]:
    """Serve a home from another thread until the end."""
    started: queue.Queue[Site | BaseException] = queue.Queue()
    stop = trio.Event()

    async def main() -> None:
        async with serving(home, **settings) as door:
            started.put(Site(door, trio.lowlevel.current_trio_token()))
            await stop.wait()

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as error:
            started.put(error)
            raise

    thread = threading.Thread(target=run, name="controller")
    thread.start()
    found = started.get(timeout=LIMIT)
    if isinstance(found, BaseException):
        raise found
    try:
        yield found
    finally:
        found.do(stop.set)
        thread.join(LIMIT)
        assert not thread.is_alive(), "the controller did not stop"
