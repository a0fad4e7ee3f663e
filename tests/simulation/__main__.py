"""`python -m tests.simulation SEED [SCALE]`: one run, by hand. SCALE is a name of scales.py."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.simulation import scales
from tests.simulation.simulation import Simulation


def main(seed: str, scale: str = "HOUR") -> None:
    began = time.process_time()
    with tempfile.TemporaryDirectory() as home:
        outcome = Simulation(Path(home), int(seed), getattr(scales, scale)).run()
    print(outcome.digest)
    print(outcome, f"{time.process_time() - began:.1f} s of CPU", file=sys.stderr)


main(*sys.argv[1:])
