"""What happens to machines, for real and small, over three OpenSSH nodes with work on them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import history
from tests.e2e.conftest import Starter
from tests.e2e.controller import eventually
from tests.faults.proxy import Cable
from tests.faults.site import Site, gone, parent, serve, site
from tests.sshd import SshFleet

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc"),
]


@pytest.fixture
def here(controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path) -> Iterator[Site]:
    for name in ("n1", "n2", "n3"):
        ssh_fleet.add(name)
    with site(controller_on(tmp_path / "home"), ssh_fleet, tmp_path) as found:
        yield found


def wait_for_incident(here: Site, root: str = "node:n1") -> None:
    eventually(lambda: here.incidents(root) == ["detected"], 40, here.controller.said)


def test_a_killed_sshd_costs_one_incident_and_no_task(here: Site) -> None:
    node = here.fleet.nodes["n1"]
    node.crash()
    wait_for_incident(here)
    node.start()
    here.finish()
    assert here.incidents("node:n1") == ["fixed"]


def test_a_stopped_sshd_costs_one_incident_and_no_task(here: Site) -> None:
    node = here.fleet.nodes["n1"]
    assert node._process is not None
    stopped = [node._process.pid, *node.sessions()]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_for_incident(here)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    here.finish()
    assert here.incidents("node:n1") == ["fixed"]


def test_a_cut_network_costs_one_incident_and_no_task(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    nodes = [ssh_fleet.add(name) for name in ("n1", "n2", "n3")]
    cable = Cable(nodes[0].port)
    try:
        for file in (ssh_fleet.config, ssh_fleet.known_hosts):
            file.write_text(file.read_text().replace(str(nodes[0].port), str(cable.port)))
        with site(controller_on(tmp_path / "home"), ssh_fleet, tmp_path) as here:
            cable.cut()
            wait_for_incident(here)
            cable.mend()
            here.finish()
            assert here.incidents("node:n1") == ["fixed"]
    finally:
        cable.close()


def test_a_killed_serve_costs_nothing(here: Site) -> None:
    node = here.fleet.nodes["n1"]
    old = serve(node)
    os.kill(old, signal.SIGKILL)
    eventually(lambda: serve(node) != old, 20, here.controller.said)
    here.finish()


def test_a_killed_agent_is_a_failed_attempt_and_is_tried_again(here: Site) -> None:
    task = here.on("n1")[0]
    os.killpg(here.agent(task), signal.SIGKILL)
    eventually(lambda: here.controller.task(task)["attempt"] == 2, 30, here.controller.said)
    here.finish(again=frozenset({task}))


def test_an_agent_whose_supervisor_was_killed_is_left_alone_and_its_attempt_repeated(
    here: Site,
) -> None:
    """Nobody can say with what exit code it ended, nor run its gates."""
    task = here.on("n1")[0]
    agent = here.agent(task)
    os.kill(parent(agent), signal.SIGKILL)
    cycle = _cycle(here)
    eventually(lambda: _cycle(here) >= cycle + 2, 30, here.controller.said)
    assert here.controller.task(task)["status"] == "running"
    assert not gone(agent)
    here.let_go()
    here.controller.wait_all(60)
    assert here.controller.counts() == {"completed": len(here.jobs)}
    runs = history.read(here.log)
    first, second = runs.pop(task)
    assert first.end is not None
    assert first.end <= second.start
    assert all(len(mine) == 1 for mine in runs.values())
    told = [event["details"] for event in here.controller.task(task)["events"]]
    assert any("no final status" in str(details) for details in told), told
    assert here.controller.task(task)["node"] != "n1"


BROKEN = (b'{"status": "comp', b"", b"\0" * 300, b"[1]")


def test_a_broken_status_of_a_task_that_lives_is_no_end(here: Site) -> None:
    for job, content in zip(here.jobs, BROKEN, strict=False):
        here.status(job.id, here.controller.task(job.id)["node"]).write_bytes(content)
    cycle = _cycle(here)
    eventually(lambda: _cycle(here) >= cycle + 3, 30, here.controller.said)
    assert here.controller.counts() == {"running": len(here.jobs)}
    here.finish()


def _cycle(here: Site) -> int:
    loops = here.controller.answer("GET", "/v1/status").json()["loops"]
    return int(loops["reaper"]["cycle"])


def test_a_clock_that_is_hours_off_harms_nobody(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    for name, hours in (("n1", 5), ("n2", -5), ("n3", 0)):
        ssh_fleet.add(name, path=f"{_python_off_by(tmp_path / name, hours)}:{os.environ['PATH']}")
    with site(controller_on(tmp_path / "home"), ssh_fleet, tmp_path) as here:
        for node in ("n1", "n2"):
            wait_for_incident(here, f"node:{node}")
        assert here.incidents("node:n3") == []
        cycle = _cycle(here)
        eventually(lambda: _cycle(here) >= cycle + 3, 30, here.controller.said)
        assert here.controller.counts() == {"running": 6}
        here.let_go()
        here.controller.wait_all(60)
        assert {row["attempt"] for row in here.controller.tasks().values()} == {1}


def _python_off_by(folder: Path, hours: int) -> Path:
    """Make a folder with a python3 whose clock is wrong; libfaketime would need a package."""
    skewed = folder / "bin"
    skewed.mkdir(parents=True)
    (skewed / "sitecustomize.py").write_text(
        "import time\n"
        f"_time, _ns, _off = time.time, time.time_ns, {hours * 3600}\n"
        "time.time = lambda: _time() + _off\n"
        "time.time_ns = lambda: _ns() + _off * 10**9\n"
    )
    program = skewed / "python3"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={skewed} exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    return skewed


WORKS_SILENTLY = "i=0; while [ $i -lt 9000 ]; do i=$((i+1)); done; sleep 0.2"


def test_a_frozen_agent_is_found_and_a_silent_one_that_works_is_left_alone(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    for name in ("n1", "n2", "n3"):
        ssh_fleet.add(name)
    controller = controller_on(tmp_path / "home")
    with site(
        controller, ssh_fleet, tmp_path, settings="stuck_after = 12\n", pause=WORKS_SILENTLY
    ) as here:
        frozen = here.on("n1")[0]
        busy = here.on("n2")[0]
        os.killpg(here.agent(frozen), signal.SIGSTOP)
        began = time.monotonic()
        eventually(lambda: here.controller.task(frozen)["attempt"] == 2, 90, controller.said)
        assert time.monotonic() - began > 12
        assert here.controller.task(busy)["attempt"] == 1
        events = here.controller.task(frozen)["events"]
        assert any("no progress" in str(event["details"]) for event in events)
        here.finish(again=frozenset({frozen}))
