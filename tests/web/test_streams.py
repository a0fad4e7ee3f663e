"""Server-sent events: what happens as it happens, and logs as they grow."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from dispatch_controller.store.connection import get_db
from dispatch_controller.web import live_logs, news
from tests.fakes import Plan
from tests.web.raw import Raw, connect
from tests.web.serving import Serving


@dataclass
class Sent:
    event: str
    id: int | None
    data: Any


class Listener:
    """Reads one stream as a browser's EventSource does; comments are passed over."""

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        self._text = ""

    async def next(self, seconds: float = 5) -> Sent | None:
        """Return the next event, None at the end of the stream."""
        while True:
            block, end, rest = self._text.partition("\n\n")
            if not end:
                data = await self._raw.data(seconds)
                if data is None:
                    return None
                self._text += data.decode()
                continue
            self._text = rest
            fields = dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":")
            if "event" in fields:
                at = int(fields["id"]) if "id" in fields else None
                return Sent(fields["event"], at, json.loads(fields["data"]))


@asynccontextmanager
async def listening(door: Serving, path: str, **headers: str) -> AsyncIterator[Listener]:
    async with connect(door.port) as raw:
        await raw.begin("GET", f"/api/v1/{path}", **headers)
        await raw.send(b"")
        head = await raw.head()
        assert head.status == 200
        assert head.headers["content-type"] == "text/event-stream"
        yield Listener(raw)


async def test_a_change_is_told_within_a_second(door: Serving) -> None:
    async with listening(door, "stream") as one, listening(door, "stream") as other:
        for task in ("A", "B"):
            began = trio.current_time()
            await door.add_tasks(task)
            for listener in (one, other):
                told = await listener.next()
                assert told is not None
                assert told.event == "task"
                assert told.data["task_id"] == task
                assert told.data["event_type"] == "task_registered"
                assert told.id == told.data["id"]
            assert trio.current_time() - began < 1


async def test_node_events_have_their_own_name(door: Serving) -> None:
    await door.add_node("mini")
    async with listening(door, "stream") as listener:
        await door.post("/api/v1/nodes/mini/disable")
        told = await listener.next()
        assert told is not None
        assert (told.event, told.data["node"]) == ("node", "mini")


async def test_what_another_program_writes_is_told_too(door: Serving) -> None:
    async with listening(door, "stream") as listener:
        with get_db(door.context.store.path) as conn:
            conn.execute(
                "INSERT INTO events (timestamp, event_type, details) VALUES ('x', 'note', 'words')"
            )
        told = await listener.next(seconds=news.SELDOM + 5)
        assert told is not None
        assert (told.event, told.data["details"]) == ("controller", {"text": "words"})


async def test_a_lost_stream_is_taken_up_where_it_broke(door: Serving) -> None:
    await door.add_tasks("A", "B", "C")
    events = (await door.data("events"))["events"]
    first = events[-1]["id"]
    headers = {"Last-Event-ID": str(first)}
    async with listening(door, "stream", **headers) as listener:
        for task in ("B", "C"):
            told = await listener.next()
            assert told is not None
            assert told.data["task_id"] == task
        await door.add_tasks("D")
        told = await listener.next()
        assert told is not None
        assert told.data["task_id"] == "D"


async def test_one_who_missed_too_much_or_comes_from_elsewhere_starts_anew(door: Serving) -> None:
    await door.add_tasks("A")
    async with listening(door, "stream", **{"Last-Event-ID": "999999"}) as listener:
        told = await listener.next()
        assert told is not None
        assert told.event == "reset"
        await door.add_tasks("B")
        after = await listener.next()
        assert after is not None
        assert after.data["task_id"] == "B"
        assert told.id == after.id - 1  # type: ignore[operator]
    for odd in ("x", "-1", "1" * 30):
        answer = await door.http.get("/api/v1/stream", headers={"Last-Event-ID": odd})
        assert answer.status_code == 422


async def test_more_events_than_are_shared_all_arrive_in_order(door: Serving) -> None:
    count = news.SHARED + 3 * news.PAGE

    def write(first: int, count: int) -> None:
        with get_db(door.context.store.path) as conn:
            conn.execute("BEGIN")
            for n in range(first, first + count):
                conn.execute(
                    "INSERT INTO events (timestamp, task_id, event_type, details)"
                    " VALUES ('x', ?, 'note', '{}')",
                    (f"T{n}",),
                )
            conn.execute("COMMIT")

    write(0, 1)
    async with (
        listening(door, "stream", **{"Last-Event-ID": "0"}) as slow,
        listening(door, "stream") as quick,
    ):
        write(1, count)
        await door.add_tasks("last")
        for listener, first in ((quick, 1), (slow, 0)):
            seen: list[str] = []
            while not seen or seen[-1] != "last":
                told = await listener.next(15)
                assert told is not None
                seen.append(told.data["task_id"])
            assert seen == [*(f"T{n}" for n in range(first, count + 1)), "last"]


async def test_streams_end_at_once_when_the_controller_stops(door: Serving) -> None:
    door.machines.add("mini", lambda order: Plan(seconds=1000))
    await door.add_node("mini")
    await door.add_tasks("A")
    door.context.knowledge.answered("mini", door.context.clock.wall())
    await door.schedule()
    async with (
        listening(door, "stream", **{"Last-Event-ID": "0"}) as events,
        listening(door, "tasks/A/log/stream") as logs,
    ):
        assert await events.next() is not None
        assert (await logs.next()) is not None
        began = trio.current_time()
        door.context.stop.set()
        while await events.next() is not None:
            pass
        assert await logs.next() is None
        with trio.fail_after(5):
            await door.finished.wait()
        assert trio.current_time() - began < 1


async def test_nobody_listens_nobody_looks(door: Serving) -> None:
    async with listening(door, "stream") as listener:
        await door.add_tasks("A")
        assert await listener.next() is not None
    await door.add_tasks("B")
    tails = trio.lowlevel.current_statistics().tasks_living
    await door.add_tasks("C")
    assert trio.lowlevel.current_statistics().tasks_living <= tails


async def test_a_log_is_followed_by_many_at_the_cost_of_one(door: Serving) -> None:
    log = "é" * 10
    machine = door.machines.add("mini", lambda order: Plan(seconds=1000, log=log))
    await door.add_node("mini")
    await door.add_tasks("A")
    door.context.knowledge.answered("mini", door.context.clock.wall())
    await door.schedule()

    async def grows(text: str) -> None:
        task = machine.tasks["shop", "A"]
        task.plan = Plan(seconds=1000, log=task.plan.log + text)

    machine.tasks["shop", "A"].plan = Plan(seconds=1000, log="one\n")
    async with (
        listening(door, "tasks/A/log/stream") as first,
        listening(door, "tasks/A/log/stream?offset=0") as second,
        listening(door, "tasks/A/log/stream", **{"Last-Event-ID": "4"}) as third,
    ):
        for listener in (first, second):
            told = await listener.next()
            assert told is not None
            assert (told.event, told.data["text"], told.id) == ("log", "one\n", 4)
        looked = machine.calls.count("read_log")
        await grows("two\n")
        for listener in (first, second, third):
            told = await listener.next()
            assert told is not None
            assert (told.data["text"], told.id) == ("two\n", 8)
        assert machine.calls.count("read_log") - looked <= 3 + 2
        machine.finish("shop", "A")
        for listener in (first, second, third):
            told = await listener.next(2 * live_logs.OFTEN + 5)
            assert told is not None
            assert told.event == "end"
            assert await listener.next() is None


async def test_a_log_whose_node_is_lost_says_so(door: Serving) -> None:
    machine = door.machines.add("mini", lambda order: Plan(seconds=1000))
    await door.add_node("mini")
    await door.add_tasks("A")
    door.context.knowledge.answered("mini", door.context.clock.wall())
    await door.schedule()
    async with listening(door, "tasks/A/log/stream") as listener:
        assert await listener.next() is not None
        machine.up = False
        told = await listener.next()
        assert told is not None
        assert told.event == "unavailable"
        assert await listener.next() is None
    assert (await door.http.get("/api/v1/tasks/A/log/stream")).status_code == 409
    assert (await door.http.get("/api/v1/tasks/B/log/stream")).status_code == 404
