"""The sizes of simulation that the tests run."""

from __future__ import annotations

from tests.simulation.simulation import Scale

DAY = 86_400.0

SMALL_DAY = Scale(nodes=5, tasks=200, seconds=DAY, minutes=20.0)
FLEET_DAY = Scale(nodes=20, tasks=300, seconds=DAY, minutes=40.0, operator=1800.0)
FLEET_WEEK = Scale(
    nodes=20, tasks=300, seconds=7 * DAY, factor=10.0, minutes=90.0, gap=6 * 3600.0,
    operator=3 * 3600.0,
)  # fmt: skip
HOUR = Scale(nodes=5, tasks=40, seconds=3600.0, minutes=4.0, gap=240.0, operator=150.0, faulty=0.25)
