"""The command line against a running controller with three SSH nodes, read as a program would."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.controller import Controller, alive, eventually
from tests.e2e.homes import makes, write_home, write_spec
from tests.sshd import SshFleet

NODES = {"n1": 2, "n2": 2, "n3": 2}
ROW = {
    "id", "project", "spec_file", "spec_hash", "status", "node", "pid", "attempt", "max_retries",
    "started_at", "completed_at", "collected_at", "heartbeat_at", "error", "log_file",
    "duration_seconds", "depends_on", "modifies", "exclusive", "priority", "lease_owner",
    "lease_expires_at", "visibility_timeout", "idempotency_key", "updated_at", "estimated_minutes",
    "artifact_hash", "artifact_patch", "loc_added", "loc_removed", "files_changed",
    "peer_validated", "peer_node", "peer_result",
}  # fmt: skip


@pytest.fixture(scope="module")
def controller(
    shared_fleet: SshFleet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Controller]:
    for name in NODES:
        shared_fleet.add(name)
    home = write_home(tmp_path_factory.mktemp("command-line") / "home", NODES, shared_fleet)
    controller = Controller(home)
    try:
        yield controller.start()
        status, _ = controller.terminate()
        assert (status, controller.errors()) == (0, [])
    finally:
        controller.close()


def test_registered_specs_run_on_ssh_nodes_and_are_shown(controller: Controller) -> None:
    folder = controller.home.parent / "run"
    write_spec(folder, "S01-first", f"echo hello from $TASK_ID\n{makes()}", project="run")
    write_spec(folder, "S02-second", makes(), project="run", depends_on=["S01"])
    write_spec(folder, "S03-other", makes(), project="run", priority=0)
    (folder / "README.md").write_text("# a document\n")
    (folder / "S04-bad.md").write_text("---\ntask_id: S04-bad\nmodifies: [/etc/passwd]\n---\n# x\n")

    done = controller.command("register", str(folder), "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1  # the good files are registered all the same
    assert (told["registered"], told["documents"], told["unchanged"]) == (3, 1, 0)
    assert [error["file"] for error in told["errors"]] == [str(folder / "S04-bad.md")]
    assert told["errors"][0]["line"] == 3
    assert "/etc/passwd" in told["errors"][0]["reason"]

    controller.wait("S02-second", "completed")
    controller.wait("S03-other", "completed")
    rows = {row["id"]: row for row in controller.json("tasks", "--project", "run")}
    assert set(rows) == {"S01-first", "S02-second", "S03-other"}
    assert set(rows["S01-first"]) >= ROW
    assert rows["S02-second"]["depends_on"] == ["S01-first"]
    assert {row["node"] for row in rows.values()} <= set(NODES)
    assert {row["attempt"] for row in rows.values()} == {1}
    assert controller.json("tasks", "--status", "failed", "--project", "run") == []

    shown = controller.json("show", "S01-first")
    assert [event["event_type"] for event in shown["events"]][-4:] == [
        "task_registered", "task_claimed", "task_running", "task_completed",
    ]  # fmt: skip
    log = controller.command("logs", "S01-first")
    assert log.stdout == "hello from S01-first\n"
    followed = controller.command("logs", "-f", "S01-first")
    assert followed.stdout == "hello from S01-first\n"


def test_status_is_the_body_of_v1_status(controller: Controller) -> None:
    told = controller.json("status")
    assert set(told) >= {"status", "version", "uptime", "tasks", "loops", "nodes", "timestamp"}
    assert {node["name"] for node in told["nodes"]} == set(NODES)
    assert {"scheduling", "db_sync", "reaper", "health_check", "probe_workers", "guardian"} <= set(
        told["loops"]
    )


def test_a_failing_task_waits_for_its_retry_and_runs_again_when_asked(
    controller: Controller,
) -> None:
    folder = controller.home.parent / "retry"
    marker = folder / "marker"
    script = f"test -e {marker}\n{makes()}"
    write_spec(folder, "R01-flaky", script, project="retry", max_retries=0)
    assert controller.json("register", str(folder))["registered"] == 1
    controller.wait("R01-flaky", "deadletter")

    refused = controller.command("cancel", "no-such-task")
    assert (refused.returncode, "no-such-task" in refused.stderr) == (1, True)
    marker.touch()
    assert controller.json("retry", "R01-flaky")[0]["status"] == "pending"
    row = controller.wait("R01-flaky", "completed")
    assert row["attempt"] == 1
    again = controller.command("retry", "R01-flaky")
    assert again.returncode == 1


def test_a_cancelled_task_is_ended_on_its_node_first(controller: Controller) -> None:
    folder = controller.home.parent / "cancel"
    marker = folder / "child.pid"
    write_spec(
        folder, "C01-long", f"sleep 600 &\necho $! > {marker}.new\nmv {marker}.new {marker}\nwait",
        project="cancel",
    )  # fmt: skip
    controller.json("register", str(folder))
    controller.wait("C01-long", "running")
    eventually(marker.exists, 10, controller.said)
    controller.json("cancel", "C01-long")
    row = controller.wait("C01-long", "deadletter")
    assert "cancelled" in row["error"]
    child = int(marker.read_text())
    assert not alive(child)
    assert controller.counts().get("running") is None


def test_a_disabled_node_takes_nothing_until_enabled(controller: Controller) -> None:
    assert {row["name"] for row in controller.json("nodes")} == set(NODES)
    for name in NODES:
        controller.json("nodes", "disable", name)
    folder = controller.home.parent / "disable"
    write_spec(folder, "D01-waits", makes(), project="disable")
    controller.json("register", str(folder))
    (row,) = controller.json("tasks", "--project", "disable")
    assert (row["status"], row["reason"]["kind"]) == ("pending", "no_slot"), row
    controller.json("nodes", "enable", "n2")
    assert controller.wait("D01-waits", "completed")["node"] == "n2"
    for name in NODES:
        controller.json("nodes", "enable", name)
