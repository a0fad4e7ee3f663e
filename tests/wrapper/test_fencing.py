"""At most one process per lease, in every order of start, void, kill and a second serve."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dispatch_controller.fleet.wrapper.attempt import Refused
from dispatch_controller.fleet.wrapper.layout import Layout
from dispatch_controller.fleet.wrapper.verbs import Verbs
from tests.wrapper.serving import OWNER, Node, exists, until

COUNT = "echo $$ >> $TASK_DIR/../../starts"


def starts(node: Node) -> int:
    """How many agents ran, whatever became of them."""
    path = node.root / "p" / "starts"
    return len(path.read_text().split()) if path.exists() else 0


def ref(order: dict[str, Any]) -> dict[str, Any]:
    return {key: order[key] for key in ("project", "folder", "lease")}


def test_a_voided_lease_never_starts(node: Node) -> None:
    order = node.order(COUNT)
    with node.serve() as serve:
        assert serve.ask("void", **ref(order)) == {"outcome": "voided"}
        assert serve.start(order)["reason"] == "void"
        assert serve.ask("void", **ref(order)) == {"outcome": "voided"}
    with node.serve() as serve:
        assert serve.start(order)["reason"] == "void"
        assert serve.start(node.order(COUNT))["outcome"] == "running"
        serve.end()
    assert node.once("start", order=order)["reason"] == "void"
    assert starts(node) == 1


def test_void_of_a_started_lease_tells_the_task(node: Node) -> None:
    order = node.order("sleep 100")
    with node.serve() as serve:
        serve.start(order)
        told = serve.ask("void", **ref(order))
        assert (told["outcome"], told["task"]["alive"]) == ("running", True)
        serve.ask("kill", **ref(order), grace=1)
        serve.end()
        told = serve.ask("void", **ref(order))
        assert (told["outcome"], told["task"]["status"]["reason"]) == ("final", "killed")


def test_void_beside_a_living_attempt_of_another_lease(node: Node) -> None:
    first, second = node.order("sleep 100"), node.order(COUNT)
    with node.serve() as serve:
        serve.start(first)
        assert serve.ask("void", **ref(second))["outcome"] == "voided"
        serve.ask("kill", **ref(first), grace=1)
        serve.end()
        assert serve.start(second)["reason"] == "void"
    assert starts(node) == 0


def test_void_wins_over_a_start_in_a_stopped_serves_pipe(node: Node) -> None:
    order = node.order(COUNT)
    with node.serve() as stopped:
        stopped.process.send_signal(signal.SIGSTOP)
        number = stopped.send("start", order=order)
        assert node.once("void", **ref(order))["outcome"] == "voided"
        stopped.process.send_signal(signal.SIGCONT)
        assert stopped.reply(number)["result"]["reason"] == "void"
    assert starts(node) == 0


def test_a_new_serve_shuts_out_a_stopped_one_with_a_start_in_its_pipe(node: Node) -> None:
    order = node.order(COUNT)
    with node.serve() as old:
        old.process.send_signal(signal.SIGSTOP)
        old.send("start", order=order)
        with node.serve() as new:
            assert new.state["tasks"] == []
            until(lambda: old.process.poll() is not None, "the end of the earlier serve")
            assert starts(node) == 0
            assert new.start(order)["outcome"] == "running"
            new.end()
    assert starts(node) == 1


def test_a_superseded_serve_refuses_what_it_had_already_read(node: Node) -> None:
    """Named by serve.next alone, before any signal reaches it."""
    with node.serve() as serve:
        state = node.root / ".dispatch" / OWNER
        (state / "another").write_text("another")
        (state / "another").replace(state / "serve.next")
        assert serve.start(node.order(COUNT))["reason"] == "superseded"
    assert starts(node) == 0


def test_many_serves_at_once_leave_one(node: Node) -> None:
    argv = [node.python, str(node.wrapper), "serve", "--root", str(node.root), "--owner", OWNER]
    serves = [
        subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for _ in range(6)
    ]
    try:
        until(lambda: sum(s.poll() is None for s in serves) == 1, "one serve that is left")
        (left,) = (s for s in serves if s.poll() is None)
        assert left.stdout is not None
        assert b'"hello"' in left.stdout.readline()
    finally:
        for serve in serves:
            serve.kill()
            serve.communicate()


def test_homes_with_different_owners_do_not_end_each_other(node: Node) -> None:
    with node.serve() as one, node.serve("f" * 16) as two:
        assert one.ask("ping") == {}
        assert two.ask("ping") == {}
        one.start(node.order("sleep 100"))
        assert two.start(node.order("sleep 100"))["reason"] == "alive"


@pytest.mark.parametrize("seed", range(6))
def test_racing_starts_and_voids_agree(node: Node, seed: int) -> None:
    """A start and a void of one lease, from two processes: exactly one of them wins."""
    orders = [node.order(COUNT, folder=f"t{n}") for n in range(5)]
    with node.serve() as serve:
        numbers = []
        voids = []
        for at, order in enumerate(orders):
            if (at + seed) % 2:
                voids.append(_Void(node, order))
                numbers.append(serve.send("start", order=order))
            else:
                numbers.append(serve.send("start", order=order))
                voids.append(_Void(node, order))
        for order, number, void in zip(orders, numbers, voids, strict=True):
            started = serve.reply(number)["result"]["outcome"] == "running"
            outcome = void.outcome()
            assert (outcome == "voided") != started, (order["folder"], outcome, started)
            if started:
                serve.end(order["folder"])
    assert starts(node) == sum(void.outcome() != "voided" for void in voids)


class _Void:
    """A one-shot void that runs beside the test."""

    def __init__(self, node: Node, order: dict[str, Any]) -> None:
        argv = [node.python, str(node.wrapper), "void", "--root", str(node.root), "--owner", OWNER]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(ref(order)).encode())
        self._process.stdin.close()
        self._outcome: str | None = None

    def outcome(self) -> str:
        if self._outcome is None:
            assert self._process.stdout is not None
            with self._process.stdout as out:
                self._outcome = json.loads(out.readline())["result"]["outcome"]
            self._process.wait()
        assert self._outcome is not None
        return self._outcome


def test_only_a_newer_attempt_starts(node: Node) -> None:
    first = node.order("true", attempt=3)
    with node.serve() as serve:
        serve.start(first)
        serve.end()
        assert serve.start({**first, "lease": "n:2", "attempt": 9})["reason"] == "stale"
        # The operator's retry restarts attempt; the sequence grows all the same.
        assert serve.start(node.order("true", attempt=1))["outcome"] == "running"
        serve.end()
        without = {**node.order("true", attempt=1), "sequence": None}
        assert serve.start(without)["reason"] == "stale"


def test_a_living_task_is_not_started_again(node: Node) -> None:
    with node.serve() as serve:
        serve.start(node.order("sleep 100"))
        refused = serve.start(node.order(COUNT))
        assert (refused["reason"], refused["task"]["alive"]) == ("alive", True)
    assert starts(node) == 0


def test_supervisor_killed_before_the_commit_means_no_agent(node: Node, tmp_path: Path) -> None:
    """The agent waits at its gate: with the decision lock held, nothing runs."""
    node.once("start", order=node.order("true", folder="t0"))
    node.final("t0")
    tasks = os.open(node.root / "p" / "tasks", os.O_RDONLY)
    fcntl.flock(tasks, fcntl.LOCK_EX)
    order = node.order(COUNT)
    try:
        with node.serve() as serve:
            number = serve.send("start", order=order)
            (supervisor,) = until(lambda: children(serve.process.pid), "a supervisor")
            (agent,) = until(lambda: children(supervisor), "an agent at its gate")
            os.kill(supervisor, signal.SIGKILL)
            assert serve.reply(number)["result"]["reason"] == "wrapper_error"
            until(lambda: not exists(agent), "the end of the agent at its gate")
    finally:
        os.close(tasks)
    assert starts(node) == 0
    assert node.once("void", **ref(order))["outcome"] == "voided"


def children(pid: int) -> list[int]:
    """Living children of a process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == str(pid) and fields[0] not in "ZX":
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize(
    "wrong",
    [
        {"project": "../p"}, {"project": ".dispatch"}, {"project": "a/b"}, {"project": ""},
        {"folder": ".."}, {"folder": "a\nb"}, {"folder": "x" * 300}, {"folder": None},
        {"lease": "a b"}, {"lease": "a\nb"}, {"lease": ""}, {"lease": 7},
        {"code": "../code"}, {"code": "tasks"}, {"timeout": 0}, {"timeout": True},
        {"attempt": "1"}, {"gates": ["nonsense"]}, {"write_set": "maybe"},
        {"executor": {"argv": []}}, {"executor": {"argv": ["true"], "rate_limit": "("}},
        {"executor": {"argv": ["true"], "modes": [{"env": {"A=B": "x"}}]}},
        {"executor": {"argv": ["true"], "modes": [{"env": {"A": "x\0y"}}]}},
        {"executor": {"argv": ["true", "{script}"]}},
        {"git": {"url": "--upload-pack=x", "branch": "main", "push": "b"}},
        {"git": {"url": "ext::sh -c x", "branch": "main", "push": "b"}},
        {"git": {"url": "/r", "branch": "--x", "push": "b"}},
        {"git": {"url": "/r", "branch": "main", "push": "a..b"}},
        {"resume": {"archive": "../../etc/passwd"}}, {"resume": {"archive": "/etc/passwd"}},
        {"spec": "\ud800"},
    ],
)  # fmt: skip
def test_hostile_orders_are_refused_and_leave_nothing(
    wrong: dict[str, Any], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    verbs = Verbs(Layout(str(root), OWNER), "x")
    order = Node(root, tmp_path).order("true")
    with pytest.raises(Refused) as refused:
        verbs.admit({**order, **wrong}, lambda: True)
    assert refused.value.reason == "bad_order"
    assert not root.exists()


def test_refuses_a_missing_program_and_a_full_disk(node: Node) -> None:
    with node.serve() as serve:
        missing = serve.start(node.order("no-such-agent", "x"))
        assert missing["reason"] == "executor_missing"
        assert "no-such-agent" in missing["message"]
        mode = {"env_files": {"KEY": "/no/such/file"}}
        assert (
            serve.start(node.order("true", executor={"modes": [mode]}))["reason"]
            == "executor_missing"
        )
        assert serve.start(node.order("/etc/passwd", "x"))["reason"] == "executor_missing"


def test_refuses_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = 1_000_000
    full = os.statvfs_result((4096, 4096, total, total // 100, total // 100, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    verbs = Verbs(Layout(str(tmp_path / "root"), OWNER), "x")
    with pytest.raises(Refused, match="99% full") as refused:
        verbs.admit(Node(tmp_path / "root", tmp_path).order("true"), lambda: True)
    assert refused.value.reason == "disk_full"
