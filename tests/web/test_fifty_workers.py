"""Fifty workers played against the protocol: what the database says is exactly what was accepted.

They beat, poll, run, report late, twice and out of order, restart in the middle, and some report
again on attempts that are long over.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from tests.web.serving import Serving

WORKERS = 50
TASKS = 120
SLOTS = 2


@dataclass
class Played:
    """A worker: what it runs is on its disk, what it was only told is not."""

    door: Serving
    name: str
    rng: random.Random
    record: Record
    told: dict[str, str] = field(default_factory=dict)
    """Task → lease, fetched and not started yet."""
    runs: dict[str, str] = field(default_factory=dict)
    outbox: list[dict[str, Any]] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)

    async def live(self) -> None:
        await self.fetch()  # before it beats: one that polls is never pushed to
        while not self.record.done.is_set():
            await self.beat()
            await self.fetch()
            self.start_and_end()
            await self.report()
            if self.rng.random() < 0.1:
                self.told.clear()  # restarted: what it had not started it has never heard of
            with trio.move_on_after(self.rng.uniform(0, 0.05)):
                await self.record.done.wait()

    async def beat(self) -> None:
        running = [{"task_id": t, "lease_owner": lease} for t, lease in self.runs.items()]
        answer = await self.ask("heartbeat", running_tasks=running, slots_free=self.free)
        assert answer["kill"] == [], self.name

    @property
    def free(self) -> int:
        return SLOTS - len(self.runs)

    async def fetch(self) -> None:
        for task in (await self.ask("poll", slots_free=self.free))["tasks"]:
            self.told[task["task_id"]] = task["lease_owner"]

    def start_and_end(self) -> None:
        for task, lease in self.told.items():
            if self.free and task not in self.runs and lease not in self.record.ran:
                self.record.ran[lease] = self.name
                self.runs[task] = lease
        self.told.clear()
        for task, lease in list(self.runs.items()):
            if self.rng.random() < 0.5:
                del self.runs[task]
                first = self.record.attempts[task] == 0
                self.record.attempts[task] += 1
                good = not (first and task in self.record.fails_first)
                status = "COMPLETED" if good else self.rng.choice(["FAILED", "TIMEOUT"])
                self.outbox.append(
                    {"task_id": task, "lease_owner": lease, "status": status, "ok": good}
                )

    async def report(self) -> None:
        self.rng.shuffle(self.outbox)
        due = self.outbox[: self.rng.randint(0, 2)]
        del self.outbox[: len(due)]
        for message in due:
            for _ in range(self.rng.choice([1, 1, 2])):
                await self.send(message)
            self.sent.append(message)
        if self.sent and self.rng.random() < 0.3:  # long over, told again, and with another end
            await self.send({**self.rng.choice(self.sent), "status": "COMPLETED", "ok": True})

    async def send(self, message: dict[str, Any]) -> None:
        answer = await self.ask("task_report", result={"ok": message["ok"]}, **message)
        if answer["accepted"]:
            await self.record.accept(self.door, message)

    async def ask(self, what: str, **body: object) -> dict[str, Any]:
        answer = await self.door.post(f"/v1/{what}", node_id=self.name, **body)
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]


@dataclass
class Record:
    """What was really done and accepted."""

    fails_first: frozenset[str]
    attempts: Counter[str] = field(default_factory=Counter)
    ran: dict[str, str] = field(default_factory=dict)
    """Lease → the worker that ran it."""
    accepted: list[tuple[str, str, str]] = field(default_factory=list)
    """(task, lease, status)"""
    done: trio.Event = field(default_factory=trio.Event)

    async def accept(self, door: Serving, message: dict[str, Any]) -> None:
        task, status = message["task_id"], message["status"]
        self.accepted.append((task, message["lease_owner"], status))
        if status != "COMPLETED":
            answer = await door.post(f"/api/v1/tasks/{task}/retry")
            assert answer.status_code == 200, answer.text
        elif sum(ended == "COMPLETED" for _, _, ended in self.accepted) == TASKS:
            self.done.set()


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_the_database_says_what_was_accepted(door: Serving) -> None:
    rng = random.Random(1)
    ids = [f"T{n:03}" for n in range(TASKS)]
    record = Record(frozenset(rng.sample(ids, TASKS // 3)))
    for n in range(WORKERS):
        await door.add_node(f"w{n:02}", slots=SLOTS)
    for task in ids:
        await door.add_tasks(task)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.scheduling.run)
        async with trio.open_nursery() as workers:
            for n in range(WORKERS):
                name = f"w{n:02}"
                played = Played(door, name, random.Random(rng.random()), record)
                workers.start_soon(played.live, name=name)
        nursery.cancel_scope.cancel()
    ends = Counter((task, status == "COMPLETED") for task, _, status in record.accepted)
    for task in ids:
        assert ends[task, True] == 1, task
        assert ends[task, False] == (task in record.fails_first), task
    leases = [lease for _, lease, _ in record.accepted]
    assert len(set(leases)) == len(leases)
    assert set(leases) == set(record.ran)
    for task in ids:
        row = door.row(task)
        last = [lease for ended, lease, _ in record.accepted if ended == task][-1]
        assert (row["status"], row["lease_owner"]) == ("completed", last)
        assert row["node"] == record.ran[last]
        passing = ("stale_report", "task_running")
        told = [kind for kind in door.event_types(task) if kind not in passing]
        again = ["task_failed", "operator_retry", "task_claimed"]
        assert told == [
            "task_registered", "task_claimed", *(again if task in record.fails_first else []),
            "task_completed",
        ]  # fmt: skip
