"""Starting, ending, reporting over one channel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from dispatch_controller.fleet.bundle import build
from tests.wrapper.serving import OWNER, Node, exists, until


def test_says_hello_and_the_whole_state_first(node: Node) -> None:
    with node.serve() as serve:
        assert serve.hello["wrapper"] == build().sha256
        assert serve.hello["protocol"] == 1
        assert serve.hello["owner"] == OWNER
        assert serve.state["tasks"] == []
        assert serve.ask("ping") == {}


def test_runs_a_task_to_its_end(node: Node) -> None:
    with node.serve() as serve:
        order = node.order(
            "echo said; echo made > $OUTPUT_DIR/x", context="Before.", gates=["exit", "changed"]
        )
        result = serve.start(order)
        assert result["outcome"] == "running"
        assert result["task"]["lease"] == order["lease"]
        status = serve.end()
    assert status["status"] == "completed"
    assert (status["exit_code"], status["files_changed"], status["loc_added"]) == (0, 1, 1)
    assert status["gates"] == {"exit": "passed", "changed": "passed"}
    assert (node.task() / "task.log").read_text() == "said\n"
    spec = (node.task() / "spec.md").read_text()
    assert spec == "Before.\n\n<!-- dispatch: the task -->\n\nDo it.\n"
    assert not (node.task() / "heartbeat").exists()
    assert not (node.task() / "wrapper.log").exists()


def test_gives_the_agent_its_environment_and_no_secret_of_ours(node: Node) -> None:
    node.env.update(CONTROLLER_TOKEN="secret", LEASE="other")
    key = node.root.parent / "key"
    key.write_text("from-file\n")
    mode = {"api_mode": "glm", "env": {"BASE": "url"}, "env_files": {"KEY": str(key)}}
    with node.serve() as serve:
        serve.start(node.order("env; cat", executor={"modes": [mode]}))
        serve.end()
    env = dict(line.split("=", 1) for line in (node.task() / "task.log").read_text().splitlines())
    assert "CONTROLLER_TOKEN" not in env
    assert env["LEASE"] == node.status()["lease"]
    assert (env["TASK_ID"], env["PROJECT"], env["ATTEMPT"], env["CI"]) == ("t1", "p", "1", "1")
    assert env["TASK_DIR"] == str(node.task())
    assert env["OUTPUT_DIR"] == str(node.task() / "output")
    assert env["SPEC_FILE"] == str(node.task() / "spec.md")
    assert (env["BASE"], env["KEY"], env["API_MODE"]) == ("url", "from-file", "glm")
    assert env["PWD"] == str(node.code)


def test_fills_in_the_command(node: Node) -> None:
    spec = "```sh\necho one\n```\n```python\nno\n```\n~~~bash\necho ${BASH_VERSION:+two}\n~~~\n"
    with node.serve() as serve:
        serve.start(node.order("{shell}", "-c", "{script}", spec=spec))
        assert serve.end()["status"] == "completed"
        serve.start(node.order("/bin/echo", "{spec}", "{prompt}", folder="t2", spec="{spec}"))
        serve.end("t2")
        serve.start(node.order("/bin/cat", "-", folder="t3", executor={"stdin": True}))
        serve.end("t3")
    assert (node.task() / "task.log").read_text() == "one\ntwo\n"
    assert (node.task("t2") / "task.log").read_text() == f"{node.task('t2')}/spec.md {{spec}}\n"
    assert (node.task("t3") / "task.log").read_text() == "Do it.\n"


def test_many_starts_at_once_are_each_answered_once(node: Node) -> None:
    with node.serve() as serve:
        numbers = [
            serve.send("start", order=node.order("/bin/true", "x", folder=f"t{n}"))
            for n in range(40)
        ]
        assert all(serve.reply(n)["result"]["outcome"] == "running" for n in numbers)
        assert all(serve.end(f"t{n}")["status"] == "completed" for n in range(40))
        assert len(serve.ask("collect")["tasks"]) == 40


def test_tells_what_ended_until_it_is_acknowledged(node: Node) -> None:
    order = node.order("true")
    with node.serve() as serve:
        serve.start(order)
        serve.end()
    with node.serve() as serve:
        (task,) = serve.state["tasks"]
        assert (task["lease"], task["alive"]) == (order["lease"], False)
        ref = {"project": "p", "folder": "t1", "lease": order["lease"]}
        serve.ask("ack", leases=[ref])
        assert serve.ask("collect")["tasks"] == []
        # A later attempt in the same folder is told again.
        serve.start(node.order("true"))
        serve.end()
        assert len(serve.ask("collect")["tasks"]) == 1
    assert len(node.once("collect")["tasks"]) == 1
    assert node.once("collect", owner="f" * 16)["tasks"] == []


@pytest.mark.parametrize("end", ["eof", "kill"])
def test_tasks_outlive_serve(node: Node, end: str) -> None:
    gate = node.root.parent / "gate"
    with node.serve() as serve:
        serve.start(
            node.order(f"until [ -e {gate} ]; do sleep 0.02; done; echo done > $OUTPUT_DIR/x")
        )
        if end == "kill":
            serve.process.kill()
            serve.process.wait()
    with node.serve() as serve:
        (task,) = serve.state["tasks"]
        assert task["alive"]
        gate.touch()
        assert serve.end()["status"] == "completed"


def test_the_channel_ends_though_tasks_run(node: Node) -> None:
    """Nothing that a task started may hold the channel's streams."""
    with node.serve() as serve:
        pid = serve.start(node.order("sleep 100"))["task"]["pgid"]
        assert serve.process.stdin is not None
        serve.process.stdin.close()
        with pytest.raises(EOFError):
            serve.wait(lambda m: False)
        assert exists(pid)
    node.once("kill", project="p", folder="t1", lease=node.status()["lease"], grace=1)
    assert node.final()["reason"] == "killed"


def test_ends_by_itself_when_nobody_speaks(node: Node) -> None:
    with node.serve(OWNER, "--idle", "0.3") as serve:
        with pytest.raises(EOFError):
            serve.wait(lambda m: False)
        assert serve.process.wait(10) == 0


def test_bad_requests_get_an_error_and_end_nothing(node: Node) -> None:
    with node.serve() as serve:
        assert serve.process.stdin is not None
        serve.process.stdin.write(b"no json\n[]\n{}\n\xff\n")
        wrong: dict[str, dict[str, object]] = {
            "nonsense": {},
            "void": {"project": "p"},
            "log": {"project": "../p", "folder": "t1"},
            "kill": {"project": "p", "folder": "t1", "lease": "x", "grace": "soon"},
            "ack": {"leases": [1]},
        }
        for op, request in wrong.items():
            reply = serve.reply(serve.send(op, **request))
            assert reply["error"]["code"] == "bad_request", reply
        assert serve.ask("ping") == {}


def test_probe_tells_how_the_node_is(node: Node) -> None:
    with node.serve() as serve:
        probe = serve.ask("probe", programs=["sh", "no-such-agent"])
    assert probe["disk_total"] > probe["disk_free"] > 0
    assert probe["memory_total"] > 0
    assert len(probe["load"]) == 3
    assert probe["agents"]["no-such-agent"] == {"version": None, "path": None}
    assert probe["agents"]["sh"]["path"].endswith("/sh")


def test_oneshot_verbs_do_the_same(node: Node) -> None:
    order = node.order("sleep 100")
    assert node.once("start", order=order)["outcome"] == "running"
    assert node.once("start", order=order)["reason"] == "alive"
    assert node.once("collect")["tasks"][0]["alive"]
    ref = {"project": "p", "folder": "t1", "lease": order["lease"]}
    assert node.once("void", **ref)["outcome"] == "running"
    assert node.once("kill", **ref, grace=1)["outcome"] == "ending"
    assert node.final()["reason"] == "killed"
    until(lambda: node.once("kill", **ref, grace=1)["outcome"] == "gone", "the end")


def test_older_callers_are_served(node: Node) -> None:
    spec = node.root.parent / "s.md"
    spec.write_text("spec")
    node.env.update(
        DISPATCH_ROOT=str(node.root), LEASE="n:1", ATTEMPT="2", API_MODE="glm",
        TASK_TIMEOUT_SECS="50", EXECUTOR_CMD="sh -c 'echo made > $OUTPUT_DIR/x; echo $EXTRA'",
        EXTRA="given",
    )  # fmt: skip
    argv = [sys.executable, str(node.wrapper), "p", "t1", str(spec)]
    done = subprocess.run(argv, env=node.env, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done
    status = node.status()
    assert (status["status"], status["lease"], status["attempt"]) == ("completed", "n:1", 2)
    assert status["api_mode"] == "glm"
    assert (node.task() / "task.log").read_text() == "given\n"
    again = subprocess.run(argv, env=node.env, capture_output=True, timeout=30, check=False)
    assert again.returncode == 75
    assert b"stale" in again.stderr


def test_reads_what_older_wrappers_wrote(node: Node) -> None:
    for folder, text in {
        "a": '{"status":"completed","exit_code":0,"completed_at":"2025-01-01T00:00:00"}',
        "b": '{"status": "run',
        "c": json.dumps({"status": "running", "pid": os.getpid()}),
        "d": json.dumps({"status": "running", "pid": 2**22 + 1}),
    }.items():
        node.task(folder).mkdir(parents=True)
        (node.task(folder) / "status.json").write_text(text)
    with node.serve() as serve:
        tasks = {task["folder"]: task for task in serve.state["tasks"]}
        assert tasks["a"]["status"]["status"] == "completed"
        assert (tasks["b"]["status"], tasks["b"]["broken"]) == (None, True)
        assert tasks["c"]["alive"]
        serve.ask("ack", leases=[{"project": "p", "folder": "a", "lease": None}])
        assert "a" not in {task["folder"] for task in serve.ask("collect")["tasks"]}
        assert (tasks["d"]["alive"], tasks["d"]["status"]["reason"]) == (False, "supervisor_lost")
        assert serve.start(node.order("true", folder="c"))["reason"] == "alive"
        assert serve.start(node.order("true", folder="b"))["outcome"] == "running"


def test_sigterm_ends_serve_at_once(node: Node) -> None:
    with node.serve() as serve:
        serve.process.send_signal(signal.SIGTERM)
        assert serve.process.wait(10) == 0
