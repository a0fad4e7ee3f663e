"""resume = "continue": what an attempt left on one node is there for the next one on another."""

from __future__ import annotations

import json
import os
import signal
import tarfile
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Starter
from tests.e2e.controller import Controller, eventually
from tests.e2e.homes import write_home, write_spec
from tests.e2e.test_git_mode import Forge
from tests.sshd import SshFleet, require_program

ORDERS = (("n1", "n2"), ("n2", "n1"))
CONTINUE = 'resume = "continue"'


def twice(path: str) -> str:
    """A script that fails half-way, and ends well only where it finds its own first half."""
    return (
        f"if [ -e {path} ]; then echo second >> {path}; exit 0; fi\necho first > {path}\nexit 1\n"
    )


def both_answer(controller: Controller) -> bool:
    return all(node["last_seen"] for node in controller.json("nodes"))


def ended_on(controller: Controller, task_id: str) -> list[tuple[str, str]]:
    events = sorted(controller.task(task_id)["events"], key=lambda event: event["id"])
    ends = ("task_failed", "task_completed")
    return [(e["event_type"], e["node"]) for e in events if e["event_type"] in ends]


def two_nodes(home: Path, fleet: SshFleet, **more: Any) -> Path:  # noqa: ANN401
    return write_home(home, {"n1": 1, "n2": 1}, fleet, settings=CONTINUE, **more)


def test_an_archive_goes_along_to_the_next_node_though_the_first_is_gone(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    for name in ("n1", "n2"):
        ssh_fleet.add(name)
    home = two_nodes(tmp_path / "home", ssh_fleet)
    write_spec(tmp_path / "work", "A01-half", twice('"$OUTPUT_DIR/part"'))
    controller = controller_on(home).start()
    eventually(lambda: both_answer(controller), 30, controller.said)
    controller.register(tmp_path / "work")
    kept = home / "salvage" / "p"
    eventually(lambda: list(kept.glob("*.tar.gz")), 30, controller.said)
    first = ended_on(controller, "A01-half")[0][1]
    ssh_fleet.nodes[first].crash()
    second = controller.wait("A01-half", "completed", timeout=60)["node"]
    assert (first, second) in ORDERS
    (archive,) = kept.iterdir()
    with tarfile.open(archive) as tar:
        assert tar.getnames() == ["output/part"]
    output = next(ssh_fleet.nodes[second].home.glob("dispatch/p/tasks/A01-half/output"))
    assert (output / "part").read_text() == "first\nsecond\n"


def test_a_salvage_branch_is_where_the_next_node_goes_on(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    require_program("git")
    forge = Forge(ssh_fleet, tmp_path, ("n1", "n2"))
    home = two_nodes(tmp_path / "home", ssh_fleet, projects={"shop": forge.project()})
    write_spec(
        tmp_path / "work", "G01-half", twice("part.txt"), project="shop", modifies=["part.txt"]
    )
    controller = controller_on(home).start()
    eventually(lambda: both_answer(controller), 30, controller.said)
    controller.register(tmp_path / "work")
    controller.wait("G01-half", "completed", timeout=60)
    (failed, first), (completed, second) = ended_on(controller, "G01-half")
    assert (failed, completed) == ("task_failed", "task_completed")
    assert (first, second) in ORDERS
    assert forge.show("part.txt") == "first\nsecond\n"
    assert "salvage/shop-G01-half-1" in forge.branches()


def test_what_a_killed_supervisor_and_agent_left_is_saved_before_the_next_attempt(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    for name in ("n1", "n2"):
        ssh_fleet.add(name)
    home = two_nodes(tmp_path / "home", ssh_fleet)
    part = '"$OUTPUT_DIR/part"'
    script = f"if [ -e {part} ]; then echo second >> {part}; exit 0; fi\necho first > {part}\n"
    write_spec(tmp_path / "work", "L01-lost", script + "exec sleep 1000\n")
    controller = controller_on(home).start()
    eventually(lambda: both_answer(controller), 30, controller.said)
    controller.register(tmp_path / "work")
    first = controller.wait("L01-lost", "running")["node"]
    folder = ssh_fleet.nodes[first].home / "dispatch/p/tasks/L01-lost"
    eventually((folder / "output/part").exists, 30, controller.said)
    status = json.loads((folder / "status.json").read_text())
    for pid in (status["supervisor"], status["pid"]):
        os.kill(pid, signal.SIGKILL)
    second = controller.wait("L01-lost", "completed", timeout=60)["node"]
    assert (first, second) in ORDERS
    output = ssh_fleet.nodes[second].home / "dispatch/p/tasks/L01-lost/output"
    assert (output / "part").read_text() == "first\nsecond\n"
    assert "attempt_refunded" in controller.events("L01-lost")
