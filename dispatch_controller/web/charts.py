"""Two small charts: bars by the hour, and the same hours of the day before behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dispatch_controller.web import words
from dispatch_controller.web.trends import HOUR, Trend

WIDTH, HEIGHT = 480, 96
"""Of the drawing's own units; the page scales it."""
GAP = 4


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    width: float
    y: float
    height: float
    before_y: float
    before_height: float
    failed_y: float
    failed_height: float
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, and what it says in words."""

    figure: str
    before: str
    change: str | None
    better: bool | None
    """Whether the change is for the better; None where there is none to speak of."""
    top: str
    """What the upper edge stands for."""
    bars: tuple[Bar, ...]


def throughput(trend: Trend) -> Chart:
    """Return completed (and failed) attempts by the hour."""
    today, before = trend.today, trend.before
    done, done_before = sum(today.completed), sum(before.completed)
    failed = sum(today.failed)
    told = [
        f"{good} completed, {bad} failed; {old} completed the day before"
        for good, bad, old in zip(today.completed, today.failed, before.completed, strict=True)
    ]
    return Chart(
        figure=f"{words.count(done)} completed, {words.count(failed)} failed",
        before=f"{words.count(done_before)} completed the 24 h before",
        change=words.change(done, done_before),
        better=None if done == done_before or not done_before else done > done_before,
        top=words.count(int(_top(today.completed, today.failed, before.completed))),
        bars=_bars(trend, today.completed, today.failed, before.completed, told),
    )


def latency(trend: Trend) -> Chart:
    """Return the median time from runnable to running, by the hour."""
    today, before = trend.today, trend.before
    now_, then = today.median_latency, before.median_latency
    told = [
        f"median {words.span(one)}; {words.span(old)} the day before"
        for one, old in zip(today.latencies, before.latencies, strict=True)
    ]
    values = [one or 0.0 for one in today.latencies]
    olds = [one or 0.0 for one in before.latencies]
    none = [0.0] * len(values)
    return Chart(
        figure=f"{words.span(now_)} at the median",
        before=f"{words.span(then)} the 24 h before",
        change=None if now_ is None or then is None else words.change(now_, then),
        better=None if now_ is None or then is None or now_ == then else now_ < then,
        top=words.span(_top(values, none, olds)),
        bars=_bars(trend, values, none, olds, told),
    )


def _top(values: Sequence[float], failed: Sequence[float], olds: Sequence[float]) -> float:
    sums = [good + bad for good, bad in zip(values, failed, strict=True)]
    return max(*sums, *olds, 0.0)


def _bars(
    trend: Trend,
    values: Sequence[float],
    failed: Sequence[float],
    olds: Sequence[float],
    told: Sequence[str],
) -> tuple[Bar, ...]:
    scale = HEIGHT / (_top(values, failed, olds) or 1.0)
    step = WIDTH / len(values)

    def high(value: float) -> float:
        return round(value * scale if value * scale >= 2 or not value else 2.0, 1)

    found = []
    for index, (value, bad, old) in enumerate(zip(values, failed, olds, strict=True)):
        good, worse, ghost = high(value), high(bad), high(old)
        hour = words.exact((trend.first_hour + index) * HOUR)[11:16]
        found.append(
            Bar(
                x=round(index * step + GAP / 2, 1),
                width=round(step - GAP, 1),
                y=round(HEIGHT - good, 1),
                height=good,
                before_y=round(HEIGHT - ghost, 1),
                before_height=ghost,
                failed_y=round(max(0.0, HEIGHT - good - worse), 1),
                failed_height=worse,
                title=f"{hour} UTC: {told[index]}",
            )
        )
    return tuple(found)
