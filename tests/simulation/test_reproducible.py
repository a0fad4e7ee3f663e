"""A seed is the whole of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.scales import HOUR
from tests.simulation.simulation import Simulation


def test_a_seed_gives_the_same_events_and_traces_again(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        digests.append(Simulation(tmp_path / name, 3, HOUR).run().digest)
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_it_does_so_in_other_processes_and_with_other_hashes() -> None:
    def run(hash_seed: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "3"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True, timeout=100,
        )  # fmt: skip
        return done.stdout

    assert run("1") == run("2")


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    digests = []
    for seed in (3, 4):
        (tmp_path / str(seed)).mkdir()
        digests.append(Simulation(tmp_path / str(seed), seed, HOUR).run().digest)
    assert digests[0] != digests[1]
