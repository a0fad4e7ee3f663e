"""Time-out, kill, leftovers: the whole tree of an agent ends, and nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.wrapper.serving import Node, Serve, exists, until

ESCAPE = "setsid sh -c 'echo $$ > $TASK_DIR/escaped; exec sleep 100' & "
FREE = "env -u LEASE setsid sh -c 'echo $$ > $TASK_DIR/escaped; exec sleep 100' & "
WAIT = "until [ -s $TASK_DIR/escaped ]; do sleep 0.02; done; "


def escaped(node: Node) -> int:
    path = node.task() / "escaped"
    return int(until(lambda: path.exists() and path.read_text().strip(), "a process that left"))


def kill(serve: Serve, order: dict[str, Any], grace: float = 1) -> dict[str, Any]:
    ref = {key: order[key] for key in ("project", "folder", "lease")}
    return serve.ask("kill", **ref, grace=grace)


def test_out_of_time_is_timeout_124(node: Node) -> None:
    with node.serve() as serve:
        serve.start(node.order("echo half > $OUTPUT_DIR/x; sleep 100", timeout=1))
        status = serve.end()
    assert (status["status"], status["exit_code"], status["reason"]) == ("timeout", 124, "timeout")
    assert status["salvage"] == "p/salvage/t1-1-s1.tar.gz"
    assert (node.root / status["salvage"]).exists()


def test_an_agent_that_ignores_term_is_killed(node: Node) -> None:
    order = node.order("trap '' TERM; echo ready; while :; do sleep 0.1; done")
    with node.serve() as serve:
        pid = serve.start(order)["task"]["pgid"]
        until(lambda: (node.task() / "task.log").read_text(), "the agent's first line")
        assert kill(serve, order, grace=0.2) == {"outcome": "ending"}
        status = serve.end()
    assert (status["reason"], status["exit_code"]) == ("killed", 137)
    assert not exists(pid)


def test_a_stopped_agent_ends_too(node: Node) -> None:
    order = node.order("exec sleep 100")
    with node.serve() as serve:
        pid = serve.start(order)["task"]["pgid"]
        os.kill(pid, signal.SIGSTOP)
        kill(serve, order)
        assert serve.end()["reason"] == "killed"
    assert not exists(pid)


@pytest.mark.parametrize("how", [ESCAPE, FREE])
def test_what_left_the_group_is_ended_and_innocents_survive(node: Node, how: str) -> None:
    order = node.order(how + WAIT + "sleep 100")
    similar = {**os.environ, "LEASE": order["lease"] + "0", "TASK_ID": "t1"}
    args = ["sleep", "100"]
    talk = [sys.executable, "-c", f"input() # LEASE={order['lease']}"]
    with (
        subprocess.Popen(args, env=similar, start_new_session=True) as neighbour,
        subprocess.Popen(talk, stdin=subprocess.PIPE) as talker,
        node.serve() as serve,
    ):  # fmt: skip
        serve.start(order)
        pid = escaped(node)
        kill(serve, order)
        status = serve.end()
        assert (status["reason"], status["leftovers"]) == ("killed", [])
        assert not exists(pid)
        assert neighbour.poll() is None
        assert talker.poll() is None
        neighbour.kill()
        talker.kill()


def test_a_server_left_running_is_a_leftover_and_blocks_nothing(node: Node) -> None:
    with node.serve() as serve:
        serve.start(node.order(ESCAPE + WAIT))
        pid = escaped(node)
        assert serve.end()["status"] == "completed"
        assert not exists(pid)
        assert serve.start(node.order("true"))["outcome"] == "running"
        assert serve.end()["status"] == "completed"
    assert "left running" in (node.task() / "wrapper.log").read_text()


def test_a_final_status_outranks_a_lock_that_cannot_be_freed(node: Node) -> None:
    """Some process without our mark holds the lock: a new attempt gets a new folder."""
    with node.serve() as serve:
        serve.start(node.order("echo old > $OUTPUT_DIR/x"))
        serve.end()
        serve.ask("collect")
        held = os.open(node.task(), os.O_RDONLY)
        try:
            until(lambda: _locked(held), "the end of the supervisor")
            assert serve.ask("collect")["tasks"][0]["alive"] is False
            assert serve.start(node.order("true"))["outcome"] == "running"
            assert serve.end()["attempt"] == 2
            fcntl.flock(held, fcntl.LOCK_UN)
        finally:
            os.close(held)
    assert (node.task() / "task.1.log").exists()


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_supervisor_lost_is_told_only_when_nothing_lives(node: Node) -> None:
    order = node.order(ESCAPE + WAIT + "sleep 100")
    with node.serve() as serve:
        task = serve.start(order)["task"]
        escaped(node)
        os.kill(task["status"]["supervisor"], signal.SIGKILL)
        (told,) = serve.ask("collect")["tasks"]
        assert (told["alive"], told["status"]["status"]) == (True, "running")
        assert serve.start(node.order("true"))["reason"] == "alive"
        os.kill(escaped(node), signal.SIGKILL)
        os.killpg(task["pgid"], signal.SIGKILL)
        until(lambda: not serve.ask("collect")["tasks"][0]["alive"], "the end of the agent")
        (told,) = serve.ask("collect")["tasks"]
        assert (told["status"]["status"], told["status"]["reason"]) == ("failed", "supervisor_lost")
        assert node.status()["status"] == "running"
        assert kill(serve, order)["outcome"] == "gone"
        assert serve.start(node.order("true"))["outcome"] == "running"


def test_kill_ends_an_attempt_whose_supervisor_is_dead(node: Node) -> None:
    order = node.order(ESCAPE + WAIT + "echo made > $OUTPUT_DIR/x; sleep 100")
    with node.serve() as serve:
        task = serve.start(order)["task"]
        pid = escaped(node)
        until((node.task() / "output" / "x").exists, "the agent's work")
        os.kill(task["status"]["supervisor"], signal.SIGKILL)
        assert kill(serve, order)["outcome"] == "ending"
        status = serve.end()
    assert (status["status"], status["reason"]) == ("failed", "killed")
    assert status["salvage"] is not None
    assert not exists(pid)
    assert not exists(task["pgid"])


def test_a_reused_pid_is_never_signalled(node: Node) -> None:
    """The recorded numbers now mean somebody else: start time and boot id do not match."""
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as innocent:
        node.task().mkdir(parents=True)
        status = {
            "status": "running", "lease": "n:1", "pid": innocent.pid, "pid_start": "1",
            "supervisor": innocent.pid, "supervisor_start": "1", "attempt": 1,
            "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        }  # fmt: skip
        (node.task() / "status.json").write_text(json.dumps(status))
        held = os.open(node.task(), os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            asked = node.once("kill", project="p", folder="t1", lease="n:1", grace=0)
            assert asked["outcome"] == "ending"
            assert node.final()["reason"] == "killed"
        finally:
            os.close(held)
        assert innocent.poll() is None
        innocent.kill()


def test_kill_of_another_lease_touches_nothing(node: Node) -> None:
    order = node.order("sleep 100")
    with node.serve() as serve:
        pid = serve.start(order)["task"]["pgid"]
        asked = kill(serve, {**order, "lease": "n:other"})
        assert (asked["outcome"], asked["task"]["lease"]) == ("other_lease", order["lease"])
        assert exists(pid)
        assert kill(serve, {**order, "folder": "t9"})["outcome"] == "gone"


def test_a_signal_to_the_supervisor_ends_the_task_in_order(node: Node) -> None:
    with node.serve() as serve:
        task = serve.start(node.order("echo x > $OUTPUT_DIR/x; echo ready; sleep 100"))["task"]
        until(lambda: (node.task() / "task.log").read_text(), "the agent's first line")
        os.kill(task["status"]["supervisor"], signal.SIGTERM)
        status = serve.end()
    assert (status["reason"], bool(status["salvage"])) == ("killed", True)


def test_an_agent_that_dies_by_a_signal_is_told_as_a_shell_does(node: Node) -> None:
    with node.serve() as serve:
        serve.start(node.order("kill -9 $$"))
        status = serve.end()
    assert (status["exit_code"], status["reason"]) == (137, "exit")
