"""`python -m tests.simulation SEED [hours [nodes [tasks]]]`: one run, by hand."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.simulation.simulation import Scale, Simulation


def main(seed: str, hours: str = "1", nodes: str = "5", tasks: str = "60") -> None:
    scale = Scale(nodes=int(nodes), tasks=int(tasks), seconds=float(hours) * 3600)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as home:
        outcome = Simulation(Path(home), int(seed), scale).run()
    print(outcome.digest)
    print(outcome, f"{time.process_time() - began:.1f} s of CPU", file=sys.stderr)


main(*sys.argv[1:])
