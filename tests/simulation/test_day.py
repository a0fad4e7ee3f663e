"""A day of the whole system, and a week of a fleet, every invariant checked at every commit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.scales import FLEET_DAY, FLEET_WEEK, SMALL_DAY
from tests.simulation.simulation import Scale, Simulation


@pytest.mark.slow
@pytest.mark.parametrize(
    "scale",
    [
        pytest.param(SMALL_DAY, id="a day of 5 nodes"),
        pytest.param(FLEET_DAY, id="a day of 20 nodes"),
        pytest.param(FLEET_WEEK, id="a week of 20 nodes"),
    ],
)
@pytest.mark.timeout(300)
def test_nothing_is_lost_or_doubled(tmp_path: Path, scale: Scale) -> None:
    outcome = Simulation(tmp_path, 1, scale).run()
    assert sum(outcome.statuses.values()) == scale.tasks
    assert outcome.statuses["completed"] > 0.8 * scale.tasks
    assert outcome.controllers > 5
    assert outcome.traces["vanished"] > 2
    assert outcome.events["attempt_refunded"] > 5
