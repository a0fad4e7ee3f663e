"""A day of the whole system, every invariant checked after every commit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.simulation import Scale, Simulation


@pytest.mark.slow
def test_a_day_of_200_tasks_on_5_nodes(tmp_path: Path) -> None:
    scale = Scale(nodes=5, tasks=200, seconds=86_400.0, minutes=20.0)
    outcome = Simulation(tmp_path, 1, scale).run()
    assert sum(outcome.statuses.values()) == 200
    assert outcome.statuses["completed"] > 150
