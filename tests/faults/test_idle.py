"""A controller that has nothing to do costs nothing."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Starter
from tests.e2e.controller import Controller, eventually
from tests.e2e.homes import write_home
from tests.faults.site import reached
from tests.sshd import SshFleet

TICK = os.sysconf("SC_CLK_TCK")


def cpu(controller: Controller) -> float:
    """Return the CPU seconds used so far, all threads."""
    fields = Path(f"/proc/{controller.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(controller: Controller) -> float:
    """Return what is resident, in MiB."""
    pages = int(Path(f"/proc/{controller.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="measures by /proc")
@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(200)]),
        pytest.param(3600, marks=[pytest.mark.soak, pytest.mark.timeout(4000)]),
    ],
)
def test_an_idle_controller_uses_under_one_percent_of_a_core_and_does_not_grow(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path, seconds: int
) -> None:
    """The contract's own intervals. The guardian's and the hourly work are part of it."""
    names = [f"n{number}" for number in range(10)]
    for name in names:
        ssh_fleet.add(name)
    home = write_home(tmp_path / "home", dict.fromkeys(names, 8), ssh_fleet, quick="")
    controller = controller_on(home).start()
    eventually(lambda: reached(controller) == len(names), 60, controller.said)
    time.sleep(10)  # first steps of all loops are no idleness
    began, used, before = time.monotonic(), cpu(controller), memory(controller)
    time.sleep(seconds)
    share = (cpu(controller) - used) / (time.monotonic() - began)
    grown = memory(controller) - before
    assert share < 0.01, f"{share:.2%} of a core"
    assert grown < 4, f"{grown:.1f} MiB more"
    assert controller.errors() == []
