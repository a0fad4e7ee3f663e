"""Git mode: clone, commit, push once, salvage; against a real repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.wrapper.serving import Node, until


class Origin:
    """A bare repository with one commit on main."""

    def __init__(self, path: Path) -> None:
        self.path = path
        work = path.parent / "work"
        self._git("init", "--quiet", "--bare", "--initial-branch=main", str(path))
        self._git("clone", "--quiet", str(path), str(work))
        (work / "a.txt").write_text("one\ntwo\n")
        (work / "b.txt").write_text("b\n")
        name = ["-c", "user.name=x", "-c", "user.email=x@y"]
        self._git("-C", str(work), "add", "--all")
        self._git("-C", str(work), *name, "commit", "--quiet", "-m", "first")
        self._git("-C", str(work), "push", "--quiet", "origin", "HEAD:refs/heads/main")

    def commit(self, name: str) -> None:
        """Somebody else's work comes into main."""
        work = self.path.parent / "work"
        (work / name).write_text("theirs\n")
        who = ["-c", "user.name=x", "-c", "user.email=x@y"]
        self._git("-C", str(work), "add", "--all")
        self._git("-C", str(work), *who, "commit", "--quiet", "-m", name)
        self._git("-C", str(work), "push", "--quiet", "origin", "HEAD:refs/heads/main")

    def branches(self) -> set[str]:
        return set(self.git("for-each-ref", "--format=%(refname:short)").split())

    def git(self, *args: str) -> str:
        return self._git("--git-dir", str(self.path), *args)

    @staticmethod
    def _git(*args: str) -> str:
        argv = ["git", *args]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def origin(git: str, tmp_path: Path) -> Origin:
    return Origin(tmp_path / "origin.git")


def source(origin: Origin, push: str = "task/p-t1-node") -> dict[str, str]:
    return {"url": str(origin.path), "branch": "main", "push": push}


GATES = ["exit", "changed", "conflict_markers", "verify"]


def test_work_is_committed_measured_and_pushed(node: Node, origin: Origin) -> None:
    with node.serve() as serve:
        command = "echo three >> a.txt; git rm -q b.txt; mkdir node_modules; touch node_modules/x"
        order = node.order(command, git=source(origin), gates=GATES, modifies=["a.txt"])
        assert serve.start(order)["outcome"] == "running"
        status = serve.end()
    assert status["status"] == "completed", status
    assert (status["files_changed"], status["loc_added"], status["loc_removed"]) == (2, 1, 1)
    assert (status["git_mode"], status["git_push_ok"]) == (True, True)
    assert status["git_branch"] == "task/p-t1-node"
    assert status["outside"] == ["b.txt"]
    assert origin.git("show", "task/p-t1-node:a.txt") == "one\ntwo\nthree\n"
    assert origin.git("ls-tree", "--name-only", "task/p-t1-node") == "a.txt\n"
    assert not (node.task() / "repo").exists()


def test_the_agents_own_commits_count(node: Node, origin: Origin) -> None:
    command = "echo x > x; git add x; git -c user.name=a -c user.email=a@b commit -qm mine"
    with node.serve() as serve:
        serve.start(node.order(command, git=source(origin), gates=GATES))
        assert serve.end()["status"] == "completed"
    assert origin.git("log", "--format=%s", "task/p-t1-node").split() == ["mine", "first"]


def test_nothing_changed_is_an_empty_run_and_pushes_nothing(node: Node, origin: Origin) -> None:
    with node.serve() as serve:
        serve.start(node.order("git status", git=source(origin), gates=GATES))
        assert serve.end()["reason"] == "empty_run"
    assert origin.branches() == {"main"}


def test_a_failed_clone_and_a_refused_push_are_sync_failed(node: Node, origin: Origin) -> None:
    with node.serve() as serve:
        missing = {**source(origin), "url": str(origin.path) + "-not"}
        serve.start(node.order("true", git=missing, gates=GATES))
        status = serve.end()
        assert (status["status"], status["reason"]) == ("failed", "sync_failed")
        assert "does not exist" in status["error"]
        (origin.path / "hooks" / "update").write_text(
            "#!/bin/sh\ncase $1 in refs/heads/task/*) echo not today; exit 1;; esac\n"
        )
        (origin.path / "hooks" / "update").chmod(0o755)
        serve.start(node.order("echo x > x", git=source(origin), gates=GATES))
        status = serve.end()
    assert (status["reason"], status["git_push_ok"]) == ("sync_failed", False)
    assert "not today" in status["error"]
    assert status["salvage"] == "salvage/p-t1-2"
    assert (node.task() / "repo").exists()


def test_a_killed_attempt_is_salvaged_not_pushed_and_can_be_resumed(
    node: Node, origin: Origin
) -> None:
    order = node.order("echo half > x; echo ready; sleep 100", git=source(origin), gates=GATES)
    with node.serve() as serve:
        serve.start(order)
        until(lambda: (node.task() / "task.log").read_text(), "the agent's work")
        serve.ask("kill", project="p", folder="t1", lease=order["lease"], grace=1)
        status = serve.end()
        assert (status["reason"], status["git_push_ok"]) == ("killed", None)
        assert status["salvage"] == "salvage/p-t1-1"
        assert origin.branches() == {"main", "salvage/p-t1-1"}
        assert origin.git("show", "salvage/p-t1-1:x") == "half\n"
        resume = {"ref": "salvage/p-t1-1"}
        order = node.order("cat x; echo whole > x", git=source(origin), gates=GATES, resume=resume)
        serve.start(order)
        assert serve.end()["status"] == "completed"
    assert origin.git("show", "task/p-t1-node:x") == "whole\n"


def test_salvage_is_a_patch_where_the_origin_is_gone(node: Node, origin: Origin) -> None:
    with node.serve() as serve:
        gone = origin.path.with_name("gone")
        command = f"echo half > x; mv {origin.path} {gone}; exit 1"
        serve.start(node.order(command, git=source(origin), gates=GATES))
        status = serve.end()
        assert status["salvage"] == "p/salvage/t1-1-s1.patch"
        gone.rename(origin.path)
        resume = {"archive": status["salvage"]}
        serve.start(node.order("cat x", git=source(origin), gates=GATES, resume=resume))
        assert serve.end()["status"] == "completed"


def test_kill_during_verify_pushes_nothing(node: Node, origin: Origin) -> None:
    verify = "touch $TASK_DIR/verifying; sleep 100"
    order = node.order("echo x > x", git=source(origin), gates=GATES, verify=verify)
    with node.serve() as serve:
        serve.start(order)
        until((node.task() / "verifying").exists, "verify")
        serve.ask("kill", project="p", folder="t1", lease=order["lease"], grace=1)
        assert serve.end()["reason"] == "killed"
    assert origin.branches() == {"main", "salvage/p-t1-1"}


def test_void_during_the_clone_finds_the_attempt(node: Node, origin: Origin) -> None:
    """The attempt exists before its clone does: it is adopted, not started twice."""
    slow = node.root.parent / "bin"
    slow.mkdir()
    gate = node.root.parent / "gate"
    (slow / "git").write_text(
        f'#!/bin/sh\nuntil [ -e {gate} ]; do sleep 0.02; done\nPATH=${{PATH#*:}} exec git "$@"\n'
    )
    (slow / "git").chmod(0o755)
    node.env["PATH"] = f"{slow}:{node.env['PATH']}"
    order = node.order("echo x > x", git=source(origin), gates=GATES)
    with node.serve() as serve:
        number = serve.send("start", order=order)
        until((node.task() / "status.json").exists, "the attempt on disk")
        told = serve.ask("void", project="p", folder="t1", lease=order["lease"])
        assert (told["outcome"], told["task"]["status"]["status"]) == ("running", "pending")
        gate.touch()
        assert serve.reply(number)["result"]["outcome"] == "running"
        assert serve.end()["status"] == "completed"


def test_a_branch_that_an_earlier_first_attempt_left_is_not_pushed_over(
    node: Node, origin: Origin
) -> None:
    """The operator's retry restarts attempts at 1; the sequence goes on."""
    with node.serve() as serve:
        for word in ("one", "two"):
            serve.start(node.order(f"echo {word} > x", git=source(origin), gates=GATES, attempt=1))
            status = serve.end()
            assert status["status"] == "completed", status
    assert status["git_branch"] == "task/p-t1-node-s2"
    assert origin.git("show", "task/p-t1-node:x") == "one\n"
    assert origin.git("show", "task/p-t1-node-s2:x") == "two\n"


def test_salvage_of_an_earlier_first_attempt_is_kept(node: Node, origin: Origin) -> None:
    with node.serve() as serve:
        for word in ("one", "two"):
            command = f"echo {word} > x; exit 1"
            serve.start(node.order(command, git=source(origin), gates=GATES, attempt=1))
            status = serve.end()
    assert status["salvage"] == "salvage/p-t1-1-s2"
    assert origin.git("show", "salvage/p-t1-1:x") == "one\n"
    assert origin.git("show", "salvage/p-t1-1-s2:x") == "two\n"


def test_salvaged_again_while_it_ends_the_same_branch_holds_all(node: Node, origin: Origin) -> None:
    command = "trap 'echo more >> x; exit' TERM; echo half > x; echo ready; sleep 100 & wait"
    order = node.order(command, git=source(origin), gates=GATES)
    with node.serve() as serve:
        serve.start(order)
        until(lambda: (node.task() / "task.log").read_text(), "the agent's work")
        serve.ask("kill", project="p", folder="t1", lease=order["lease"], grace=5)
        assert serve.end()["salvage"] == "salvage/p-t1-1"
    assert origin.git("show", "salvage/p-t1-1:x") == "half\nmore\n"
    assert origin.branches() == {"main", "salvage/p-t1-1"}


def test_what_others_merged_since_is_not_counted_as_removed_by_one_that_goes_on(
    node: Node, origin: Origin
) -> None:
    with node.serve() as serve:
        serve.start(node.order("echo half > x; exit 1", git=source(origin), gates=GATES))
        saved = serve.end()["salvage"]
        origin.commit("other.txt")
        order = node.order(
            "echo whole > x", git=source(origin), gates=GATES, resume={"ref": saved},
            modifies=["x"], write_set="fail",
        )  # fmt: skip
        serve.start(order)
        status = serve.end()
    assert (status["status"], status["outside"], status["files_changed"]) == ("completed", [], 1)
