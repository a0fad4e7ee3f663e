"""A simulated month: limits, allowance, numbers in order; and research by the hour."""

from __future__ import annotations

from itertools import count, pairwise

import pytest
import trio
from trio.testing import MockClock

from dispatch_controller.core.ledger import generation_of
from dispatch_controller.core.times import parse_iso
from dispatch_controller.factory.feeds import Item
from dispatch_controller.factory.sources import Fetched, SourceFailed
from dispatch_controller.model import TaskStatus
from dispatch_controller.runtime.threads import RunSync
from dispatch_controller.settings_sections import Source
from tests.factory.conftest import Bench, MakeBench

HOUR, DAY = 3600.0, 86_400.0


async def run_for(bench: Bench, seconds: float) -> None:
    """Let the loop run, then end it as a kill would: at a sleep, without a word."""
    with trio.move_on_after(seconds):
        await bench.factory.run()


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_month_within_all_limits(mock_bench: MakeBench, autojump_clock: MockClock) -> None:
    made = mock_bench(per_day=4)
    made.settings = made.settings.model_copy(
        update={
            "loops": made.settings.loops.model_copy(
                update={
                    "factory": made.settings.loops.factory.model_copy(update={"interval": 7200})
                }
            )
        }
    )
    made.restart()
    for name in ("good", "half", "bad"):
        root = made.project(name)
        lines = "".join(f"# TODO: part {name} {number}\n" for number in range(130))
        (root / "a.py").write_text(lines)
    blocked: list[tuple[float, bool]] = []
    """From when on more than half of the last 20 of the bad project had failed, or no longer."""

    async def world() -> None:
        """Every two hours what is pending ends: well, every second time well, or badly."""
        ended = dict.fromkeys(("good", "half", "bad"), 0)
        await trio.sleep(HOUR)
        for hour in count():
            for project in ended:
                for task in made.tasks(project):
                    if task.status is TaskStatus.PENDING:
                        ended[project] += 1
                        well = project == "good" or (project == "half" and ended[project] % 2)
                        end = "completed" if well else "deadletter"
                        made.set(task.id, status=end, error="no")
            if hour % 60 == 59:  # every five days somebody mends all of the bad project
                for task in made.tasks("bad"):
                    made.set(task.id, status="completed")
            last = sorted(made.tasks("bad"), key=lambda t: (t.updated_at or 0, t.completed_at or 0))
            failed = [task.status is TaskStatus.DEADLETTER for task in last[-20:]]
            blocked.append((made.clock.wall(), sum(failed) > len(failed) / 2))
            await trio.sleep(2 * HOUR)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(world)
        for _ in range(10):
            await run_for(made, 3 * DAY)
            made.restart()
        nursery.cancel_scope.cancel()

    counts = {}
    for project in ("good", "half", "bad"):
        told = [e for e in made.events("factory_generated") if e.details["project"] == project]
        times = [parse_iso(event.timestamp) or 0.0 for event in told]
        counts[project] = len(times)
        for start in times:
            assert sum(start <= at < start + DAY for at in times) <= 4
        generations = [int(str(event.details["generation"])) for event in told]
        assert generations == sorted(generations)
        assert set(generations) == set(range(1, max(generations) + 1))
        assert [generation_of(str(e.task_id)) for e in told] == generations
        keys = [event.details["evidence_key"] for event in told]
        assert len(keys) == len(set(keys))
    assert counts["good"] == 4 * 30
    assert counts["good"] > counts["half"] > counts["bad"]
    bad = [e for e in made.events("factory_generated") if e.details["project"] == "bad"]
    for event in bad:
        at = parse_iso(event.timestamp) or 0.0
        before = [state for since, state in blocked if since <= at]
        assert not before or not before[-1]
    assert any(state for _, state in blocked)


async def test_research_is_hourly_across_restarts(
    mock_bench: MakeBench, autojump_clock: MockClock
) -> None:
    asked: list[float] = []

    async def fetch(
        source: Source, run_sync: RunSync, etag: str | None = None, modified: str | None = None
    ) -> Fetched:
        await trio.lowlevel.checkpoint()
        asked.append(trio.current_time())
        if len(asked) == 3:
            raise SourceFailed("the network is down")
        return Fetched([Item(f"i{len(asked)}", f"Item {len(asked)}")], etag="e")

    made = mock_bench(sources={"news": {"kind": "feed", "url": "http://127.0.0.1:9/"}})
    made.fetch = fetch
    made.project("shop")
    made.restart()
    start = trio.current_time()
    for hours in (2.5, 0.6, 1.37, 3.0, 4.53):
        await run_for(made, hours * HOUR)
        made.restart()
    slots = [(at - start) / HOUR for at in asked]
    assert len(slots) == 12
    for number, at in enumerate(slots):
        assert 0 <= at - number < 61 / HOUR
    assert all(later - earlier > 0.9 for earlier, later in pairwise(slots))
    notes = sorted((made.settings.specs / "shop" / "research").glob("*.md"))
    assert len(notes) == 11
    assert "Item 1" in notes[0].read_text()


async def test_a_controller_that_was_down_researches_once(
    mock_bench: MakeBench, autojump_clock: MockClock
) -> None:
    asked: list[float] = []

    async def fetch(
        source: Source, run_sync: RunSync, etag: str | None = None, modified: str | None = None
    ) -> Fetched:
        await trio.lowlevel.checkpoint()
        asked.append(trio.current_time())
        return Fetched()

    made = mock_bench(sources={"news": {"kind": "feed", "url": "http://127.0.0.1:9/"}})
    made.fetch = fetch
    made.project("shop")
    made.restart()
    start = trio.current_time()
    await run_for(made, 10)
    await trio.sleep(26.5 * HOUR)
    made.restart()
    await run_for(made, 0.6 * HOUR)
    slots = [(at - start) / HOUR for at in asked]
    assert [round(at, 1) for at in slots] == [0.0, 26.5, 27.0]
