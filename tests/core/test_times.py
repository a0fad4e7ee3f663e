"""Times of the database's columns: written in one form, read in every form that occurs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_controller.core.times import iso, parse_iso


@pytest.fixture
def in_shanghai(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is UTC+8."""
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_time_is_written_as_utc_with_microseconds_and_offset() -> None:
    assert iso(0) == "1970-01-01T00:00:00.000000+00:00"
    assert iso(1_750_000_000.25) == "2025-06-15T15:06:40.250000+00:00"


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2025-06-15T15:06:40.250000+00:00", 1_750_000_000.25),
        ("2025-06-15T15:06:40Z", 1_750_000_000),
        ("2025-06-15T17:06:40+02:00", 1_750_000_000),
        ("2025-06-15 15:06:40+00:00", 1_750_000_000),
        (" 2025-06-15T15:06:40Z\n", 1_750_000_000),
        ("2025-06-15T23:06:40", 1_750_000_000),  # naive: local
        ("2025-06-15 23:06:40.5", 1_750_000_000.5),
        ("2025-06-15", 1_749_916_800),
    ],
)
@pytest.mark.usefixtures("in_shanghai")
def test_a_time_with_offset_z_or_none_at_all_is_read(text: str, at: float) -> None:
    assert parse_iso(text) == at


@pytest.mark.parametrize(
    "text", [None, "", "soon", 5, 5.5, b"2025-06-15", "2025-13-01", "0001-01-01T00:00:00", "٢"]
)
def test_what_is_no_time_is_none(text: object) -> None:
    found = parse_iso(text)
    assert found is None or found < 0  # the year 1 is one on some systems


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (1e30, "9999-12-31T00:00:00.000000+00:00"),
        (float("inf"), "9999-12-31T00:00:00.000000+00:00"),
        (-1e30, "1970-01-01T00:00:00.000000+00:00"),
        (float("nan"), "1970-01-01T00:00:00.000000+00:00"),
    ],
)
def test_a_time_that_no_calendar_has_does_not_raise(at: float, text: str) -> None:
    assert iso(at) == text


@given(st.floats(0, 253_000_000_000))
def test_what_is_written_is_read_back_to_the_microsecond(at: float) -> None:
    found = parse_iso(iso(at))
    assert found is not None
    assert abs(found - at) < 1e-5 + abs(at) * 1e-15
