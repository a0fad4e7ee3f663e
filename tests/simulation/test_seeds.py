"""Hours of random faults by seed; `make soak` runs more of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import FakeNode
from tests.simulation.history import Violation
from tests.simulation.scales import HOUR
from tests.simulation.simulation import Simulation


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_an_hour_of_faults(tmp_path: Path, seed: int) -> None:
    Simulation(tmp_path, seed, HOUR).run()


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20, 220))
def test_another_hour_of_faults(tmp_path: Path, seed: int) -> None:
    Simulation(tmp_path, seed, HOUR).run()


class Forgetful(set[tuple[str, str, str]]):
    """What a node that forgets has voided."""

    def __contains__(self, _: object) -> bool:
        return False


def forget(node: FakeNode) -> None:
    node._voids = Forgetful()


@pytest.mark.slow
def test_nodes_that_forget_what_was_voided_are_found_out(tmp_path: Path) -> None:
    """The simulation is no use if it passes whatever the fleet does."""
    with pytest.raises(Violation, match=r"starts, but|was started twice|runs as|lives"):
        for seed in range(20):
            home = tmp_path / str(seed)
            home.mkdir()
            Simulation(home, seed, HOUR, prepare_node=forget).run()
