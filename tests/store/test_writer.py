"""The group-commit writer keeps the promises of database.md."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dispatch_controller.runtime.threads import in_thread
from dispatch_controller.store.connection import get_db
from dispatch_controller.store.store import Store
from dispatch_controller.store.writer import Connection, StoreClosed


def insert(conn: Connection, name: str) -> str:
    conn.execute("INSERT INTO nodes (name) VALUES (?)", (name,))
    return name


def names(conn: Connection) -> list[str]:
    return [row["name"] for row in conn.execute("SELECT name FROM nodes ORDER BY name")]


async def test_a_unit_returns_its_value_once_committed(store: Store, db_path: Path) -> None:
    assert await store.write(insert, "a") == "a"
    with get_db(db_path) as conn:
        assert [row["name"] for row in conn.execute("SELECT name FROM nodes")] == ["a"]


async def test_units_that_queue_up_are_committed_together(store: Store) -> None:
    async with trio.open_nursery() as nursery:
        for n in range(600):
            nursery.start_soon(store.write, insert, f"n{n:03}")
    assert len(await store.read(names)) == 600
    assert store.stats.batches < 20
    assert max(store.stats.sizes) <= 256


async def test_a_unit_that_raises_rolls_back_alone(store: Store) -> None:
    failures: list[str] = []

    async def add(name: str, fail: bool) -> None:
        def unit(conn: Connection) -> None:
            insert(conn, name)
            if fail:
                raise ValueError(name)

        try:
            await store.write(unit)
        except ValueError as error:
            failures.append(str(error))

    async with trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(add, f"n{n:02}", n % 5 == 0)
    assert sorted(failures) == ["n00", "n05", "n10", "n15"]
    assert len(await store.read(names)) == 16


async def test_an_error_that_ends_the_transaction_does_not_take_its_neighbours(
    store: Store,
) -> None:
    await store.write(insert, "taken")
    failures: list[BaseException] = []

    async def add(name: str) -> None:
        try:
            await store.write(
                lambda conn: (
                    conn.execute(
                        "INSERT OR ROLLBACK INTO nodes (name) VALUES (?)", (name,)
                    ).rowcount
                )
            )
        except sqlite3.IntegrityError as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for name in ("a", "taken", "b"):
            nursery.start_soon(add, name)
    assert await store.read(names) == ["a", "b", "taken"]
    assert len(failures) == 1


async def test_a_unit_cannot_end_the_batch(store: Store) -> None:
    def unit(conn: Connection) -> None:
        insert(conn, "x")
        conn.execute("COMMIT")

    with pytest.raises(ValueError, match="transaction"):
        await store.write(unit)
    assert await store.write(insert, "y") == "y"


async def test_a_unit_may_not_return_rows(store: Store) -> None:
    with pytest.raises(TypeError):
        await store.write(lambda conn: conn.execute("SELECT 1"))


async def test_a_caller_cancelled_while_queued_takes_its_unit_back(
    store: Store, db_path: Path
) -> None:
    with get_db(db_path) as neighbour:
        neighbour.execute("BEGIN IMMEDIATE")
        with trio.move_on_after(0.05) as scope:
            await store.write(insert, "withdrawn")
        assert scope.cancelled_caught
        assert store.depth == 0
        neighbour.execute("ROLLBACK")
    await store.write(insert, "later")
    assert await store.read(names) == ["later"]


async def test_a_unit_once_taken_tells_its_outcome_though_cancelled(store: Store) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def unit(conn: Connection) -> str:
        entered.set()
        go_on.wait(10)
        return insert(conn, "kept")

    outcomes: list[str] = []
    scope = trio.CancelScope()

    async def caller() -> None:
        with scope:
            outcomes.append(await store.write(unit))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller)
        await in_thread(entered.wait, 10)
        scope.cancel()
        await wait_all_tasks_blocked()
        go_on.set()
    assert outcomes == ["kept"]
    assert await store.read(names) == ["kept"]


async def test_reads_go_on_while_a_neighbour_holds_the_write_lock(
    store: Store, db_path: Path
) -> None:
    await store.write(insert, "a")
    with get_db(db_path) as neighbour:
        neighbour.execute("BEGIN IMMEDIATE")
        with trio.fail_after(5):
            for _ in range(20):
                assert await store.read(names) == ["a"]
        neighbour.execute("ROLLBACK")


async def test_a_write_waits_for_a_neighbour_without_an_error(store: Store, db_path: Path) -> None:
    with get_db(db_path) as neighbour:
        neighbour.execute("BEGIN IMMEDIATE")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write, insert, "patient")
            await trio.sleep(0.2)
            assert store.depth == 1  # nothing is taken before the lock is ours
            neighbour.execute("COMMIT")
    assert await store.read(names) == ["patient"]


async def test_drain_writes_what_is_queued_and_refuses_what_comes_later(db_path: Path) -> None:
    store = Store(db_path, in_thread)
    with get_db(db_path) as neighbour:
        neighbour.execute("BEGIN IMMEDIATE")
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            for n in range(50):
                nursery.start_soon(store.write, insert, f"n{n}")
            while store.depth < 50:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(store.drain)
            await wait_all_tasks_blocked()
            with pytest.raises(StoreClosed):
                await store.write(insert, "late")
            neighbour.execute("ROLLBACK")
    assert len(await store.read(names)) == 50


async def test_a_cancelled_writer_lets_go_of_a_busy_database_and_refuses_the_queue(
    db_path: Path,
) -> None:
    store = Store(db_path, in_thread)
    refused: list[BaseException] = []

    async def caller() -> None:
        try:
            await store.write(insert, "x")
        except StoreClosed as error:
            refused.append(error)

    with get_db(db_path) as neighbour:
        neighbour.execute("BEGIN IMMEDIATE")
        with trio.fail_after(5):
            async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
                await nursery.start(store.run)
                outer.start_soon(caller)
                await trio.sleep(0.05)
                nursery.cancel_scope.cancel()
        neighbour.execute("ROLLBACK")
    assert len(refused) == 1


async def test_a_database_that_cannot_be_opened_is_an_error_of_the_caller(tmp_path: Path) -> None:
    store = Store(tmp_path / "gone.db", in_thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        with pytest.raises(sqlite3.OperationalError):
            await store.write(insert, "x")
        assert not (tmp_path / "gone.db").exists()
        await store.drain()
