"""A thousand tasks over three SSH nodes, judged by what the tasks themselves wrote down."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e import history
from tests.e2e.conftest import Starter
from tests.e2e.controller import Controller, eventually
from tests.e2e.history import Job
from tests.e2e.homes import write_home
from tests.sshd import SshFleet

SLOTS = {"n1": 50, "n2": 50, "n3": 40}
TASKS = 1000
KILLS = 10
SEED = 20_260_101


def _write_jobs(folder: Path, jobs: list[Job], log: Path) -> None:
    for job in jobs:
        place = folder / job.project
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{job.id}.md").write_text(job.markdown(log))


def _holders(database: Path) -> set[int]:
    """Return the processes that have the database open; ours has it open only while it uses it."""
    if shutil.which("lsof") is None:
        pytest.skip("needs lsof")
    listed = subprocess.run(
        ["lsof", "-t", "--", str(database)], capture_output=True, text=True, check=False
    )
    return {int(pid) for pid in listed.stdout.split()}


def _check_nothing_was_locked(controller: Controller) -> None:
    assert "database is locked" not in controller.said()
    assert not [line for line in controller.log() if "database is locked" in str(line)]
    before = None
    while True:
        page = controller.get("events", limit=1000, **({"before": before} if before else {}))
        assert "database is locked" not in str(page)
        before = page["next"]
        if before is None:
            return


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_thousand_tasks_break_no_rule(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    for name in SLOTS:
        ssh_fleet.add(name)
    log, specs = tmp_path / "tasks.log", tmp_path / "work"
    jobs = history.plan(TASKS, SEED)
    _write_jobs(specs, jobs, log)
    controller = controller_on(write_home(tmp_path / "home", SLOTS, ssh_fleet)).start()
    assert controller.register(specs)["registered"] == TASKS

    eventually(lambda: history.started(log) > TASKS // 2, 120, controller.counts)
    assert _holders(controller.home / "dispatch.db") <= {controller.pid}
    controller.wait_all(120)

    assert controller.counts() == {"completed": TASKS}
    assert history.violations(jobs, history.read(log)) == []
    _check_nothing_was_locked(controller)
    assert controller.errors() == []


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_thousand_tasks_break_no_rule_while_the_controller_and_an_sshd_are_killed(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    for name in SLOTS:
        ssh_fleet.add(name)
    log, specs = tmp_path / "tasks.log", tmp_path / "work"
    jobs = history.plan(TASKS, SEED + 1)
    _write_jobs(specs, jobs, log)
    controller = controller_on(write_home(tmp_path / "home", SLOTS, ssh_fleet)).start()
    assert controller.register(specs)["registered"] == TASKS

    rng = random.Random(SEED)
    # The moments are points of the work's own progress, so that all of them come before its end.
    moments = sorted(rng.sample(range(1, TASKS * 9 // 10), KILLS))
    for number, moment in enumerate(moments):
        eventually(lambda: history.started(log) >= moment, 90, controller.counts)  # noqa: B023
        time.sleep(rng.uniform(0, 0.2))  # not always just after a start
        assert _holders(controller.home / "dispatch.db") <= {controller.pid}
        controller.kill()
        if number == KILLS // 3:
            ssh_fleet.nodes["n2"].crash()
        if number == KILLS // 3 + 2:
            ssh_fleet.nodes["n2"].start()
        controller.start()
    controller.wait_all(150)

    assert controller.counts() == {"completed": TASKS}
    assert history.violations(jobs, history.read(log)) == []
    _check_nothing_was_locked(controller)
