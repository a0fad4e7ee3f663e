"""Answers that are computed once for many."""

from __future__ import annotations

import trio
import trio.testing

from dispatch_controller.store import events
from dispatch_controller.store.store import Store
from dispatch_controller.store.writer import Connection
from dispatch_controller.web.remembered import MOST_AGE, UNCHANGED, Remembered


async def write(store: Store) -> None:
    def add(conn: Connection) -> None:
        events.add(conn, 0.0, "something")

    await store.write(add)


class Work:
    """Counts how often it is done; each time takes `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.times = 0

    async def __call__(self) -> int:
        await trio.sleep(self.seconds)
        self.times += 1
        return self.times


async def test_it_is_made_again_after_every_write(
    inline_store: Store, autojump_clock: trio.testing.MockClock
) -> None:
    value = Remembered(inline_store, Work(0.1))
    assert [await value.get(), await value.get()] == [1, 1]
    await write(inline_store)
    assert value.stale
    assert await value.get() == 2
    assert not value.stale
    await trio.sleep(UNCHANGED)  # somebody else may have written
    assert await value.get() == 3


async def test_what_is_costly_is_given_again_for_a_while(
    inline_store: Store, autojump_clock: trio.testing.MockClock
) -> None:
    value = Remembered(inline_store, Work(2.0), costly=True)
    assert await value.get() == 1
    await write(inline_store)
    assert await value.get() == 1
    assert value.stale
    await trio.sleep(MOST_AGE)
    assert await value.get() == 2


async def test_many_askers_cost_one(
    inline_store: Store, autojump_clock: trio.testing.MockClock
) -> None:
    work = Work(0.5)
    value = Remembered(inline_store, work)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(value.get)
    assert work.times == 1
