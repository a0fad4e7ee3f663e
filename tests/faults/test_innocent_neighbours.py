"""Ending a task ends all that it started, and nothing that only looks like it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Starter
from tests.e2e.controller import alive, eventually
from tests.e2e.homes import write_home, write_spec
from tests.sshd import SshFleet

TREE = """\
note() {{ echo $1 >> {pids}; }}
note $$
sleep 4711 & note $!
( sleep 4712 & note $!; wait ) &
setsid sleep 4713 & note $!
setsid sh -c 'echo $$ >> {pids}; trap "" TERM; while :; do sleep 4714; done' &
trap "" HUP
wait
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds by environment what left its group")
def test_a_task_is_ended_with_all_it_started_and_nothing_else(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    node = ssh_fleet.add("n1")
    pids = tmp_path / "pids"
    controller = controller_on(write_home(tmp_path / "home", {"n1": 2}, ssh_fleet)).start()
    write_spec(tmp_path / "work", "S1", TREE.format(pids=pids), max_retries=0)
    write_spec(tmp_path / "work", "S10", "exec sleep 4711")
    controller.register(tmp_path / "work")
    ours = controller.wait("S1", "running")
    other = controller.wait("S10", "running")

    def started() -> list[int]:
        return [int(line) for line in pids.read_text().split()] if pids.exists() else []

    eventually(lambda: len(started()) == 5, 20, started)
    folder = node.home / "dispatch" / "p" / "tasks" / "S1"
    looks = {
        "TASK_ID": "S1", "PROJECT": "p", "ATTEMPT": "1", "HOME": str(node.home),
        "TASK_DIR": str(folder), "LEASE": f"{ours['lease_owner']}0",
    }  # fmt: skip
    innocent = [
        subprocess.Popen(argv, env={**os.environ, **more}, cwd=cwd, start_new_session=session)
        for argv, more, cwd, session in (
            (["sleep", "4711"], {}, None, False),
            (["sh", "-c", "exec sleep 4711", "S1", str(ours["lease_owner"])], {}, None, True),
            (["sleep", "4711"], looks, None, True),
            (["sleep", "4711"], {"LEASE": str(other["lease_owner"])}, folder, True),
        )
    ]
    try:
        controller.post("tasks/S1/cancel")
        controller.wait("S1", "deadletter", timeout=60)
        eventually(lambda: not any(map(alive, started())), 40, started)
        assert [process.poll() for process in innocent] == [None] * len(innocent)
        assert controller.task("S10")["status"] == "running"
    finally:
        for process in innocent:
            process.kill()
            process.wait()
