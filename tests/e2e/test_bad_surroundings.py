"""Odd nodes, wrong files, full disks: told in words, and worked around."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.conftest import Starter
from tests.e2e.controller import eventually, run
from tests.e2e.homes import makes, write_home, write_spec
from tests.sshd import SshFleet

IN_USE, CONFIG = 75, 78

Mount = Callable[[str, str], Path]

# What a cluster may have of its own, in small: no lease in its status, a pid file, local times.
WRAPPER = r"""#!/bin/sh
folder=$(dirname "$3")
echo $$ > "$folder/pid"
status() {
    printf '{"status":"%s","pid":%s,"exit_code":%s}' "$1" $$ "$2" > "$folder/new"
    mv "$folder/new" "$folder/status.json"
}
status running null
echo "$1 $2 $API_MODE $LEASE $ATTEMPT $TASK_TIMEOUT_SECS" > "$folder/task.log"
if grep -q 'echo bad' "$3"; then status failed 3; else status completed 0; fi
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Mount]:
    """Return a function that makes a small file system (name, size); needs the right to mount."""
    with ExitStack() as mounted:

        def mount(name: str, size: str) -> Path:
            place = tmp_path / name
            place.mkdir()
            argv = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
            if os.geteuid() != 0 or subprocess.run(argv, capture_output=True).returncode:
                pytest.skip("only root may mount a small file system")
            mounted.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)
            return place

        yield mount


def _fill(folder: Path) -> Path:
    """Write a file that takes all the room there is."""
    path = folder / "filling"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 512):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return path


def test_odd_nodes_are_told_apart_and_the_good_one_does_the_work(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "cat", "mkdir", "mv", "rm", "wc", "dirname"):
        (tools / name).symlink_to(str(shutil.which(name)))
    chatty = ssh_fleet.add("chatty")
    for name in (".bashrc", ".zshenv", ".profile"):
        (chatty.home / name).write_text('echo \'Welcome! {"event": "hello"}\'\necho >&2 news\n')
    ssh_fleet.add("bare", path=str(tools))
    ssh_fleet.add("stranger", trust=False)
    changed = ssh_fleet.add("changed")
    changed.stop()
    changed.new_host_key()
    changed.start()
    ssh_fleet.add("away").stop()
    names = ("chatty", "bare", "stranger", "changed", "away")
    home = write_home(tmp_path / "home", dict.fromkeys(names, 2), ssh_fleet)
    controller = controller_on(home).start()
    for number in range(4):
        write_spec(tmp_path / "work", f"T{number}", makes())
    controller.register(tmp_path / "work")
    controller.wait_all(30)
    assert {(row["status"], row["node"]) for row in controller.tasks().values()} == {
        ("completed", "chatty")
    }

    def told() -> dict[str, str]:
        rows = {row["name"]: row for row in controller.get("nodes")}
        assert rows["chatty"]["reachable"]
        return {name: row["last_error"] or "" for name, row in rows.items()}

    bad = names[1:]
    errors = eventually(lambda: all(told()[name] for name in bad) and told(), 20, told)
    assert isinstance(errors, dict)
    assert "python3" in errors["bare"]
    assert "ssh-keyscan" in errors["stranger"] or "known" in errors["stranger"]
    assert "changed" in errors["changed"]
    assert "connect" in errors["away"].lower()
    assert "Traceback" not in controller.said()


def test_a_second_controller_on_a_home_names_the_first_one(
    controller_on: Starter, tmp_path: Path
) -> None:
    home = write_home(tmp_path / "home", {"here": 1})
    controller = controller_on(home).start()
    second = run("run", "--home", str(home), "--port", "0")
    assert (second.returncode, second.stdout) == (IN_USE, "")
    assert f"pid {controller.pid}" in second.stderr
    assert controller.json("status")["status"] == "OK"


def test_a_port_in_use_is_told_with_what_to_do(tmp_path: Path) -> None:
    home = write_home(tmp_path / "home", {"here": 1})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = run("run", "--home", str(home), "--port", port)
    assert (refused.returncode, refused.stdout) == (CONFIG, "")
    assert port in refused.stderr
    assert "--port" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_database_of_another_schema_is_left_as_it_is_and_all_that_is_missing_is_named(
    tmp_path: Path,
) -> None:
    home = write_home(tmp_path / "home", {"here": 1})
    database = home / "dispatch.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE tasks (id TEXT PRIMARY KEY, project TEXT, status TEXT)")
        connection.execute("CREATE TABLE nodes (name TEXT PRIMARY KEY)")
        connection.execute("INSERT INTO tasks VALUES ('mine', 'p', 'pending')")
    connection.close()
    before = database.read_bytes()
    refused = run("run", "--home", str(home), "--port", "0")
    assert refused.returncode == CONFIG
    for missing in ("lease_owner", "spec_file", "modifies", "slots", "file_locks", "events"):
        assert missing in refused.stderr
    assert database.read_bytes() == before
    assert "Traceback" not in refused.stderr


def test_wrong_entries_of_nodes_json_are_named_and_the_others_work(
    controller_on: Starter, tmp_path: Path
) -> None:
    home = write_home(tmp_path / "home", {"here": 2})
    (good,) = json.loads((home / "nodes.json").read_text())["nodes"]
    wrong = [{"name": "many", "slots": "4"}, {"slots": 2}, "text", {"name": "a/b"}]
    (home / "nodes.json").write_text(json.dumps([*wrong, good]))
    write_spec(home / "specs" / "p", "T1", makes())
    controller = controller_on(home).start()
    controller.register(home / "specs")
    assert controller.wait("T1", "completed")["node"] == "here"
    told = "\n".join(controller.errors())
    for part in ("many: slots", "#2: name", "#3: must be an object", "a/b: name"):
        assert f"nodes.json: {part}" in told
    assert [node["name"] for node in controller.get("nodes")] == ["here"]


@pytest.mark.slow
def test_a_full_node_gives_its_task_to_another_one_and_costs_no_retry(
    small_disk: Mount, controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    for name in ("full", "roomy"):
        ssh_fleet.add(name)
    place = small_disk("disk", "8m")
    home = write_home(tmp_path / "home", {"full": 4, "roomy": 1}, ssh_fleet)
    nodes = json.loads((home / "nodes.json").read_text())["nodes"]
    nodes[0] |= {"work_dir": str(place / "dispatch"), "priority": 1}  # it is the preferred one
    (home / "nodes.json").write_text(json.dumps(nodes))
    controller = controller_on(home).start()
    controller.reach(2)
    write_spec(tmp_path / "work", "T1-early", makes())
    controller.register(tmp_path / "work")
    assert controller.wait("T1-early", "completed")["node"] == "full"
    _fill(place)
    write_spec(tmp_path / "work", "T2-late", makes())
    controller.register(tmp_path / "work")
    row = controller.wait("T2-late", "completed", timeout=60)  # held back for 30 s
    assert row["node"] == "roomy"
    events = controller.events("T2-late")
    assert events.count("task_claimed") == events.count("attempt_refunded") + 1
    assert "disk" in str(controller.task("T2-late")["events"])


def test_a_full_home_acknowledges_nothing_and_goes_on_when_there_is_room_again(
    small_disk: Mount, controller_on: Starter, tmp_path: Path
) -> None:
    home = write_home(small_disk("home", "24m"), {"here": 2})
    controller = controller_on(home).start()
    write_spec(tmp_path / "work", "T1-early", makes())
    controller.register(tmp_path / "work")
    controller.wait("T1-early", "completed")
    filling = _fill(home)
    for number in range(200):
        write_spec(tmp_path / "more", f"M{number:03}", makes())
    answer = controller.answer(
        "POST", "/api/v1/register", json={"paths": [str(tmp_path / "more")]}, timeout=60
    )
    assert answer.status_code in (200, 503), answer.text
    filling.unlink()
    more = {"paths": [str(tmp_path / "more")]}
    eventually(
        lambda: controller.answer("POST", "/api/v1/register", json=more).is_success,
        30,
        controller.said,
    )
    controller.wait_all(60)
    assert controller.counts() == {"completed": 201}


def test_a_clusters_own_task_wrapper_works_and_is_polled(
    controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    ssh_fleet.add("n1")
    wrapper = tmp_path / "task-wrapper.sh"
    wrapper.write_text(WRAPPER)
    wrapper.chmod(0o755)
    home = write_home(
        tmp_path / "home", {"n1": 2}, ssh_fleet, settings=f'task_wrapper = "{wrapper}"\n'
    )
    work = tmp_path / "work"
    write_spec(work, "S01-good", "echo good")
    write_spec(work, "S02-after", "echo after", depends_on=["S01"])
    write_spec(work, "S03-bad", "echo bad", max_retries=0)
    controller = controller_on(home).start()
    controller.register(work)
    controller.wait("S02-after", "completed", timeout=20)
    row = controller.wait("S03-bad", "deadletter", timeout=20)
    assert "3" in row["error"]
    assert "p S01-good direct n1:" in controller.command("logs", "S01-good").stdout
    assert controller.errors() == []
