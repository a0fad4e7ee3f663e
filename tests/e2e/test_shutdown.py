"""SIGTERM, and a start again: quick, silent, and the tasks on the nodes do not notice."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

from tests.e2e import history
from tests.e2e.conftest import Starter
from tests.e2e.controller import Controller, eventually
from tests.e2e.history import Job
from tests.e2e.homes import write_home
from tests.sshd import SshFleet

IDLE_SECONDS = 1.0
GRACE = 3


def test_an_idle_controller_ends_at_once_with_0(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    ssh_fleet.add("n1")
    home = write_home(tmp_path / "home", {"n1": 1, "here": 1}, ssh_fleet)
    controller = controller_on(home).start()
    controller.reach(2)
    status, took = controller.terminate()
    assert (status, took < IDLE_SECONDS) == (0, True), took
    assert controller.errors() == []
    assert not (home / "controller.json").exists()
    assert "Traceback" not in controller.said()
    wal = home / "dispatch.db-wal"
    assert not wal.exists() or wal.stat().st_size == 0


def test_running_tasks_go_on_and_are_adopted_by_the_next_start(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    ssh_fleet.add("n1")
    log, release = tmp_path / "tasks.log", tmp_path / "release"
    home = write_home(tmp_path / "home", {"n1": 3, "here": 3}, ssh_fleet)
    controller = controller_on(home).start()
    jobs = [Job(f"T{number}", "p", (), (f"{number}",), False, 0.0) for number in range(6)]
    for job in jobs:
        # Three end while no controller runs, three only under the next one.
        waits = f"while [ ! -e {release}.{int(job.id[1]) % 2} ]; do sleep 0.05; done"
        text = job.markdown(log).replace("sleep 0.0", waits)
        (home / "specs" / "p").mkdir(parents=True, exist_ok=True)
        (home / "specs" / "p" / f"{job.id}.md").write_text(text)
    controller.register(home / "specs")
    eventually(lambda: controller.counts() == {"running": 6}, 20, controller.counts)
    eventually(lambda: history.started(log) == 6, 10, log.read_text)

    status, took = controller.terminate()
    assert (status, took < IDLE_SECONDS) == (0, True), took
    Path(f"{release}.0").touch()
    eventually(lambda: log.read_bytes().count(b"end ") == 3, 10, log.read_text)

    controller.start()
    eventually(lambda: controller.counts() == {"completed": 3, "running": 3}, 20, controller.counts)
    Path(f"{release}.1").touch()
    controller.wait_all(20)
    assert controller.counts() == {"completed": 6}
    assert history.violations(jobs, history.read(log)) == []
    assert {controller.task(job.id)["attempt"] for job in jobs} == {1}
    assert controller.terminate()[0] == 0
    assert controller.errors() == []


def test_a_stop_in_the_middle_of_a_busy_run_logs_no_error_and_loses_nothing(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    ssh_fleet.add("n1")
    log, folder = tmp_path / "tasks.log", tmp_path / "work"
    jobs = history.plan(120, 5)
    folder.mkdir()
    for job in jobs:
        (folder / f"{job.id}.md").write_text(job.markdown(log))
    controller = controller_on(write_home(tmp_path / "home", {"n1": 30, "here": 10}, ssh_fleet))
    controller.start().register(folder)
    for share in (10, 50, 90):
        eventually(lambda: history.started(log) >= share, 30, controller.counts)  # noqa: B023
        assert controller.terminate()[0] == 0
        controller.start()
    controller.wait_all(60)
    assert controller.counts() == {"completed": len(jobs)}
    assert history.violations(jobs, history.read(log)) == []
    assert controller.errors() == []
    assert "Traceback" not in controller.said()


def _with_a_start_in_a_node_that_hangs(
    controller_on: Starter, fleet: SshFleet, folder: Path
) -> Controller:
    node = fleet.add("n1")
    home = write_home(folder / "home", {"n1": 4}, fleet)
    controller = controller_on(home)
    controller.extra = {"DISPATCH_GRACE": str(GRACE)}
    controller.start()
    eventually(lambda: controller.json("nodes")[0]["reachable"], 20, controller.said)
    for pid in node.sessions():
        os.kill(pid, signal.SIGSTOP)
    job = Job("T1", "p", (), ("a",), False, 0.0)
    (home / "specs" / "p").mkdir()
    (home / "specs" / "p" / "T1.md").write_text(job.markdown(folder / "tasks.log"))
    controller.register(home / "specs")
    controller.wait("T1", "claimed")
    return controller


def test_what_hangs_is_given_the_grace_and_no_more(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    controller = _with_a_start_in_a_node_that_hangs(controller_on, ssh_fleet, tmp_path)
    status, took = controller.terminate()
    assert (status, GRACE <= took < GRACE + 2) == (0, True), took
    assert controller.errors() == []
    assert "Traceback" not in controller.said()


def test_a_second_signal_waits_for_nothing(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    controller = _with_a_start_in_a_node_that_hangs(controller_on, ssh_fleet, tmp_path)
    os.kill(controller.pid, signal.SIGTERM)
    eventually(lambda: "stop asked for" in controller.said(), 5, controller.said)
    status, took = controller.terminate()
    assert (status, took < IDLE_SECONDS) == (0, True), took
    assert controller.errors() == []
    with sqlite3.connect(controller.home / "dispatch.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
