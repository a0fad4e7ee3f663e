"""Numbers and times in words."""

from __future__ import annotations

import pytest

from dispatch_controller.web import words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"), (float("nan"), "–"), (-3, "0 ms"), (0.0421, "42 ms"), (0.9996, "1 s"),
        (1, "1 s"), (2.34, "2.3 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"),
        (3600, "1 h"), (11_100, "3 h 5 min"), (100_000, "27 h"), (172_800, "2 d"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert words.span(seconds) == text


@pytest.mark.parametrize(
    ("at", "text"),
    [(1000, "now"), (999.5, "now"), (940, "1 min ago"), (995, "5 s ago"), (1120, "in 2 min")],
)
def test_times_are_told_from_now(at: float, text: str) -> None:
    assert words.ago(at, 1000) == text


def test_a_time_is_relative_with_its_exact_time_as_title() -> None:
    shown = words.when(1_800_000_000.0, 1_800_000_060.0)
    assert shown == (
        '<time datetime="2027-01-15T08:00:00.000000+00:00" title="2027-01-15 08:00:00 UTC">'
        "1 min ago</time>"
    )


@pytest.mark.parametrize(
    ("octets", "text"),
    [(None, "–"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**40 * 3, "3.0 TiB")],
)
def test_sizes(octets: float | None, text: str) -> None:
    assert words.size(octets) == text


def test_counts_and_changes() -> None:
    assert words.count(1234567) == "1\u202f234\u202f567"
    assert words.change(112, 100) == "+12 %"
    assert words.change(50, 100) == "−50 %"
    assert words.change(100, 100) == "as before"
    assert words.change(3, 0) is None


@pytest.mark.parametrize("most", [5, 8, 21])
def test_long_ids_keep_both_ends(most: int) -> None:
    text = "shop-000-a-very-long-name-017"
    short = words.shortened(text, most)
    assert len(short) == most
    assert short[0] == "s"
    assert short[-1] == "7"
    assert words.shortened("short", most) == "short"
