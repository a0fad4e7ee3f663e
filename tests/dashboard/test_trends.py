"""The last 24 hours against the 24 before."""

from __future__ import annotations

import json
from collections.abc import Sequence

from dispatch_controller.core.times import iso
from dispatch_controller.store import measures
from dispatch_controller.store.connection import get_db
from dispatch_controller.store.store import Store
from dispatch_controller.web import charts
from dispatch_controller.web.trends import Trends

NOW = 1_800_000_000.0 + 1800
HOUR = 3600.0


def tell(store: Store, events: Sequence[tuple[float, str, str]]) -> None:
    """Write (time, task, event type)."""
    with get_db(store.path) as conn:
        conn.execute("BEGIN")
        conn.executemany(
            "INSERT INTO events (timestamp, task_id, event_type, details) VALUES (?, ?, ?, ?)",
            [(iso(at), task, kind, json.dumps({})) for at, task, kind in sorted(events)],
        )
        conn.execute("COMMIT")


def life(
    at: float, task: str, waits: float, end: str = "task_completed"
) -> list[tuple[float, str, str]]:
    return [
        (at - waits, task, "task_registered"), (at, task, "task_running"), (at + 9, task, end),
    ]  # fmt: skip


async def test_hours_are_counted_and_timed(inline_store: Store) -> None:
    tell(
        inline_store,
        [
            *life(NOW - 300, "a", 2), *life(NOW - 200, "b", 4), *life(NOW - 100, "c", 8),
            *life(NOW - 2 * HOUR, "d", 1, "task_failed"),
            *life(NOW - 30 * HOUR, "e", 40), *life(NOW - 60 * HOUR, "f", 99),
        ],
    )  # fmt: skip
    trend = await Trends(inline_store).look(NOW)
    assert trend.whole
    assert trend.today.completed[-1] == 3
    assert trend.today.failed[-3] == 1
    assert trend.today.latencies[-1] == 4
    assert trend.today.median_latency == 3
    assert sum(trend.before.completed) == 1
    assert trend.before.median_latency == 40


async def test_news_are_added_and_old_hours_forgotten(inline_store: Store) -> None:
    trends = Trends(inline_store)
    tell(inline_store, life(NOW - 300, "a", 2))
    assert sum((await trends.look(NOW)).today.completed) == 1
    tell(inline_store, life(NOW - 200, "b", 2))
    assert sum((await trends.look(NOW)).today.completed) == 2
    later = await trends.look(NOW + 24 * HOUR)
    assert (sum(later.today.completed), sum(later.before.completed)) == (0, 2)
    assert sum((await trends.look(NOW + 72 * HOUR)).before.completed) == 0


async def test_many_events_are_read_bit_by_bit(inline_store: Store) -> None:
    number = measures.PAGE + 10
    tell(inline_store, [(NOW - 60, f"t{n}", "task_completed") for n in range(number)])
    trends = Trends(inline_store)
    trend = await trends.look(NOW)
    while not trend.whole:
        trend = await trends.look(NOW)
    assert sum(trend.today.completed) == number


async def test_charts_say_whether_it_got_better(inline_store: Store) -> None:
    tell(
        inline_store,
        [
            *life(NOW - 300, "a", 2), *life(NOW - 200, "b", 2),
            *life(NOW - 200, "c", 2, "task_failed"), *life(NOW - 26 * HOUR, "d", 4),
        ],
    )  # fmt: skip
    trend = await Trends(inline_store).look(NOW)
    done, waited = charts.throughput(trend), charts.latency(trend)
    assert done.figure == "2 completed, 1 failed"
    assert (done.change, done.better) == ("+100 %", True)
    assert (waited.figure, waited.change, waited.better) == ("2 s at the median", "−50 %", True)
    assert len(done.bars) == 24
    for bar in (*done.bars, *waited.bars):
        assert 0 <= bar.failed_y <= bar.y <= charts.HEIGHT
    nothing = await Trends(inline_store).look(NOW + 72 * HOUR)
    assert charts.throughput(nothing).change is None
    assert charts.latency(nothing).figure == "– at the median"
