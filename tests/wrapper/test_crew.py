"""A supervisor that stays for another attempt: each attempt stands for itself all the same."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from dispatch_controller.fleet.wrapper.layout import Layout
from dispatch_controller.fleet.wrapper.taskdir import encode
from dispatch_controller.fleet.wrapper.verbs import Verbs
from tests.wrapper.serving import OWNER, Node, Serve, exists, until


def run(node: Node, serve: Serve, folder: str, script: str = "true") -> dict[str, Any]:
    """Run one task to its end, and return its final status once its supervisor waits or is gone."""
    serve.start(node.order(script, folder=folder))
    status = serve.end(folder)
    until(lambda: waits(status["supervisor"]), "a supervisor that is done")
    return status


def waits(supervisor: int) -> bool:
    """Whether a supervisor is gone, or has let go of its task's folder."""
    folder = Path(f"/proc/{supervisor}/fd")
    try:
        links = [str(entry.readlink()) for entry in folder.iterdir()]
    except OSError:
        return not exists(supervisor)
    return not any("/tasks/" in link or "serve.lock" in link for link in links)


def test_the_next_attempt_is_supervised_by_one_that_stayed(node: Node) -> None:
    with node.serve() as serve:
        first = run(node, serve, "t1", "echo $LEASE $PWD")
        second = run(node, serve, "t2", "echo $LEASE $PWD")
    assert first["supervisor"] == second["supervisor"]
    assert first["lease"] != second["lease"]
    for status in (first, second):
        log = (node.task(status["task_id"]) / "task.log").read_text()
        assert log.split() == [status["lease"], str(node.code)]


def test_one_that_waits_holds_neither_lock(node: Node) -> None:
    with node.serve() as serve:
        status = run(node, serve, "t1")
        assert exists(status["supervisor"])
        with node.serve() as newer:  # gets serve.lock, though the other's supervisor waited
            assert newer.start(node.order("true", folder="t1"))["outcome"] == "running"
            newer.end("t1")


def test_those_who_wait_end_with_their_serve(node: Node) -> None:
    with node.serve() as serve:
        supervisor = run(node, serve, "t1")["supervisor"]
        assert exists(supervisor)
        os.kill(serve.process.pid, signal.SIGKILL)
        until(lambda: not exists(supervisor), "the end of the supervisor")


def test_one_that_was_killed_while_it_waited_costs_no_start(node: Node) -> None:
    with node.serve() as serve:
        for number, how in enumerate((signal.SIGKILL, signal.SIGTERM)):
            supervisor = run(node, serve, f"t{number}")["supervisor"]
            os.kill(supervisor, how)
            until(lambda pid=supervisor: not exists(pid), "its end")  # type: ignore[misc]
        assert run(node, serve, "last")["status"] == "completed"


@pytest.mark.parametrize("left", ["told", "child"])
def test_one_with_something_left_of_its_attempt_does_not_stay(node: Node, left: str) -> None:
    script = 'touch "$TASK_DIR/end.json"' if left == "told" else "kill -TERM $PPID; sleep 0.1"
    with node.serve() as serve:
        first = run(node, serve, "t1", script)
        until(lambda: not exists(first["supervisor"]), "the end of the supervisor")
        assert run(node, serve, "t2")["supervisor"] != first["supervisor"]


def test_a_late_kill_does_not_meet_the_next_attempt(node: Node) -> None:
    """The status was read as running; by the time of the signal the attempt is over."""
    with node.serve() as serve:
        order = node.order("true", folder="t1")
        serve.start(order)
        first = serve.end("t1")
        until(lambda: waits(first["supervisor"]), "a supervisor that waits")
        second = node.order("sleep 100", folder="t2")
        serve.start(second)
        assert node.status("t2")["supervisor"] == first["supervisor"]
        verbs = Verbs(Layout(str(node.root), OWNER), "x")
        result, follow = verbs.kill({key: order[key] for key in ("project", "folder", "lease")})
        assert (result, follow) == ({"outcome": "gone"}, False)
        verbs.see_through({key: order[key] for key in ("project", "folder", "lease")})
        assert exists(node.status("t2")["pid"])
        serve.ask("kill", **{key: second[key] for key in ("project", "folder", "lease")}, grace=1)
        assert serve.end("t2")["reason"] == "killed"
        assert json.loads((node.task("t2") / "end.json").read_text())["lease"] == second["lease"]


def test_an_order_too_long_for_the_channel_is_started_too(node: Node) -> None:
    with node.serve() as serve:
        run(node, serve, "t1")
        serve.start(node.order("true", folder="t2", spec="x" * 200_000))
        assert serve.end("t2")["status"] == "completed"
    assert len(encode(node.status("t2"))) < 4000
