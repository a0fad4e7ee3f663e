"""kill -9 at random moments of a busy run, and a start after each: sound, nothing lost or doubled.

The moments are drawn from a seed; where in the run they fall is up to the machine.
"""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from dispatch_controller.store.schema import prepare
from tests.e2e import history
from tests.e2e.conftest import Starter
from tests.e2e.controller import eventually
from tests.e2e.homes import write_home
from tests.faults.neighbour import rows, sound
from tests.sshd import SshFleet

SEED = 20_260_303
WAITING = 10_000


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
        pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
def test_a_controller_killed_at_random_moments_loses_and_doubles_nothing(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path, kills: int
) -> None:
    ssh_fleet.add("n1")
    log, specs = tmp_path / "tasks.log", tmp_path / "work"
    jobs = history.plan(8 * kills, SEED)
    for job in jobs:
        place = specs / job.project
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{job.id}.md").write_text(job.markdown(log))
    home = write_home(tmp_path / "home", {"n1": 4, "here": 4}, ssh_fleet)
    controller = controller_on(home).start()
    assert controller.register(specs)["registered"] == len(jobs)
    rng = random.Random(SEED)
    for _ in range(kills):
        time.sleep(rng.expovariate(4))
        controller.kill()
        assert sound(home / "dispatch.db")
        assert rows(home / "dispatch.db").keys() == {job.id for job in jobs}
        controller.start()
    controller.wait_all(200)
    assert controller.counts() == {"completed": len(jobs)}
    assert history.violations(jobs, history.read(log)) == []
    assert "Traceback" not in controller.said()


@pytest.mark.slow
def test_the_first_pass_over_ten_thousand_tasks_comes_within_two_seconds_of_the_start(
    controller_on: Starter, tmp_path: Path
) -> None:
    home = write_home(tmp_path / "home", {"here": 1})
    folder = home / "specs" / "p"
    folder.mkdir()
    spec = folder / "shared.md"
    spec.write_text("---\ntask_id: shared\nproject: p\nexecutor: nobody\nmodifies: [a]\n---\n# x\n")
    prepare(home / "dispatch.db")
    with closing(sqlite3.connect(home / "dispatch.db")) as conn, conn:
        conn.executemany(
            "INSERT INTO tasks (id, project, spec_file, modifies) VALUES (?, 'p', ?, ?)",
            ((f"T{n:05}", str(spec), f'["f{n}"]') for n in range(WAITING)),
        )
    controller = controller_on(home)
    took = []
    for _ in range(3):
        began = time.monotonic()
        controller.start()
        eventually(lambda: _passes(controller.answer("GET", "/v1/status").json()), 20, dict)
        took.append(time.monotonic() - began)
        assert controller.terminate()[0] == 0
    assert min(took) < 2.0, took


def _passes(status: dict[str, dict[str, dict[str, object]]]) -> bool:
    return status["loops"]["scheduling"]["last_ok"] is not None
