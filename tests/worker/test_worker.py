"""Our own worker in this process, with a real wrapper, against a controller that is scripted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from dispatch_controller.fleet.http import new_client, worker_token
from dispatch_controller.fleet.worker_payload import execute_fields
from dispatch_controller.model import Refused, Started, Unknown
from dispatch_controller.runtime.clock import SystemClock
from dispatch_controller.worker.app import Parts, build_parts, listen
from dispatch_controller.worker.intake import FRESH, BadTask
from dispatch_controller.worker.options import Options
from tests.fleet.old_worker import OldWorker
from tests.fleet.orders import an_order

OWNER = "fedcba9876543210"
QUICK = "# task\n\n```sh\necho hello\n```\n"
HANGS = "# task\n\n```sh\nexec sleep 300\n```\n"


@dataclass
class Script(OldWorker):
    """A controller that answers as it is told; `news` is set by each call."""

    news: trio.Event = field(default_factory=trio.Event)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, object]:
        self.news.set()
        self.news = trio.Event()
        return self.answers.get(path, (200, {"status": "OK", "accepted": True, "kill": []}))

    async def until(self, done: Callable[[], object]) -> None:
        with trio.fail_after(30):
            while not done():
                await self.news.wait()


@dataclass
class Place:
    controller: Script
    parts: Parts

    async def start(self, spec: str, sequence: int = 1, folder: str = "T1") -> object:
        order = an_order(folder, spec=spec, sequence=sequence)
        until = SystemClock().wall() + FRESH
        return await self.parts.intake.start(execute_fields(order, "~"), until)


@asynccontextmanager
async def at_work(root: Path, **more: Any) -> AsyncIterator[Place]:  # noqa: ANN401
    async with Script().serving() as script, new_client() as client, trio.open_nursery() as nursery:
        assert isinstance(script, Script)
        options = Options(script.url, "n", 2, root, **more)
        parts = build_parts(options, OWNER, client)
        await nursery.start(parts.transport.run)
        await parts.service.collect(1)
        try:
            yield Place(script, parts)
        finally:
            for lease in parts.ledger.leases():
                seen = parts.ledger.get(lease)
                assert seen is not None
                await parts.door.kill({"task_id": seen.task_id, "lease_owner": lease, "grace": 0})
            parts.stop.set()
            nursery.cancel_scope.cancel()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with at_work(tmp_path / "root") as place:
        yield place


async def test_a_report_is_sent_until_it_is_acknowledged(
    place: Place, nursery: trio.Nursery
) -> None:
    script = place.controller
    script.answers["task_report"] = (500, "")
    nursery.start_soon(place.parts.reporter.run)
    assert isinstance(await place.start(QUICK), Started)
    await script.until(lambda: len(script.called("task_report")) == 2)
    assert (await place.parts.transport.collect()).tasks
    script.answers["task_report"] = (200, {"status": "OK", "accepted": False, "reason": "known"})
    await script.until(lambda: len(script.called("task_report")) == 3)
    with trio.fail_after(10):
        while (await place.parts.transport.collect()).tasks:
            pass
    first, _, last = script.called("task_report")
    assert (first["status"], first["ok"], first["attempt"]) == ("COMPLETED", True, 1)
    assert first["lease_owner"] == last["lease_owner"] == an_order().lease
    assert first["result"]["stdout"] == "hello\n"
    assert first["task"]["status"]["exit_code"] == 0
    assert place.parts.ledger.unreported() == []
    nursery.cancel_scope.cancel()


async def test_one_report_that_is_refused_keeps_no_other_back(
    place: Place, nursery: trio.Nursery
) -> None:
    script = place.controller
    script.answers["task_report"] = (404, {"error": "there is no task"})
    await place.start(QUICK)
    await place.start(QUICK, 2, "T2")
    nursery.start_soon(place.parts.reporter.run)
    await script.until(lambda: len(script.called("task_report")) == 2)
    with trio.fail_after(10):
        while place.parts.ledger.unreported():
            await place.parts.transport.collect()
    nursery.cancel_scope.cancel()


async def test_the_same_task_may_come_any_number_of_times(place: Place) -> None:
    first = await place.start(HANGS)
    again = await place.start(HANGS)
    assert isinstance(first, Started)
    assert isinstance(again, Started)
    assert again.observation.pid == first.observation.pid
    assert isinstance(await place.start(HANGS, 2, "T2"), Started)
    full = await place.start(HANGS, 3, "T3")
    assert isinstance(full, Refused)
    assert full.reason == "no_slot"


async def test_a_task_that_comes_too_late_is_not_started(place: Place) -> None:
    """The controller has given it back by then."""
    intake, now = place.parts.intake, SystemClock().wall()
    body = execute_fields(an_order(spec=QUICK), "~")
    for until in (now - 1, now + 2 * FRESH):  # slept, or the clock was set back
        assert isinstance(await intake.start(body, until), Unknown)
    assert (await place.parts.transport.collect()).tasks == ()
    with pytest.raises(BadTask, match="no order"):
        await intake.start({"task_id": "T1", "command": "true"}, now + 1)


async def test_a_refused_start_is_reported_by_a_worker_that_polls(
    place: Place, nursery: trio.Nursery
) -> None:
    script = place.controller
    order = execute_fields(an_order(spec="# nothing to run"), "~")
    script.answers["poll"] = (200, {"status": "OK", "tasks": [order, 7, {"task_id": "x"}]})
    await place.parts.service.poll(nursery)
    await script.until(lambda: script.called("task_report"))
    (report,) = script.called("task_report")
    assert (report["status"], report["task"]["status"]["reason"]) == ("FAILED", "bad_order")
    assert "fenced" in report["result"]["error"]


async def test_nothing_is_told_before_it_is_known_what_runs(tmp_path: Path) -> None:
    """What a worker does not list counts as gone."""
    async with Script().serving() as script, new_client() as client:
        parts = build_parts(Options(script.url, "n", 2, tmp_path), OWNER, client)
        async with trio.open_nursery() as nursery:
            await parts.service.beat(1)
            await parts.service.poll(nursery)
        assert script.calls == []
        for call in ("status", "health", "execute"):
            assert (await parts.door.answer(call, {}))[0] == 503


async def test_a_heartbeat_ends_what_the_controller_names(place: Place) -> None:
    assert isinstance(await place.start(HANGS), Started)
    place.controller.answers["heartbeat"] = (200, {"status": "OK", "kill": ["T1", "T9"]})
    await place.parts.service.beat(1)
    (beat,) = place.controller.called("heartbeat")
    assert [task["task_id"] for task in beat["running_tasks"]] == ["T1"]
    assert (beat["slots_free"], beat["max_slots"]) == (1, 2)
    with trio.fail_after(10):
        while not place.parts.ledger.unreported():
            await place.parts.transport.collect()
    (end,) = place.parts.ledger.unreported()
    assert end.reason == "killed"


async def test_who_has_no_token_gets_nothing_run(tmp_path: Path) -> None:
    """Neither without one, nor with the controller's own, which is never sent to a worker."""
    async with at_work(tmp_path / "root", token="secret") as place, trio.open_nursery() as nursery:
        url = await nursery.start(listen, place.parts, ("0.0.0.0", 0))
        url = url.replace("0.0.0.0", "127.0.0.1")
        body = execute_fields(an_order(spec=QUICK), "~")
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            for token in (None, "secret", worker_token("secret", "other")):
                headers = {} if token is None else {"Authorization": f"Bearer {token}"}
                for call in ("execute", "kill", "void"):
                    answer = await http.post(f"/v1/{call}", json=body, headers=headers)
                    assert answer.status_code == 401, call
                assert (await http.get("/v1/log", headers=headers)).status_code == 401
            right = {"Authorization": f"Bearer {worker_token('secret', 'n')}"}
            assert (await http.get("/v1/health", headers=right)).status_code == 200
            for wrong in (b"no json", b"[]", b'{"order": 7}', b'{"order": {"lease": ["x"]}}'):
                headers = {**right, "Content-Type": "application/json"}
                answer = await http.post("/v1/execute", content=wrong, headers=headers)
                assert answer.status_code == 400, wrong
            assert (
                await http.get("/v1/log?project=../x&folder=y", headers=right)
            ).status_code == 503
            assert (await http.get("/v1/nothing", headers=right)).status_code == 404
        assert (await place.parts.transport.collect()).tasks == ()
        nursery.cancel_scope.cancel()
