"""What changed, the gates, limits of the executor, salvage, and what a task says of itself."""

from __future__ import annotations

import os
import tarfile
import time
from pathlib import Path

import pytest

from dispatch_controller.fleet.wrapper.paths import outside
from dispatch_controller.fleet.wrapper.ratelimit import reset_time
from tests.wrapper.serving import Node, until

DEFAULT = ["exit", "changed", "conflict_markers", "verify"]


def run(node: Node, command: str, **fields: object) -> dict[str, object]:
    """Run a task by a one-shot start; returns its final status."""
    order = node.order(command, **fields)  # type: ignore[arg-type]
    assert node.once("start", order=order)["outcome"] == "running"
    return node.final()


def test_exit_0_without_a_change_is_an_empty_run(node: Node) -> None:
    status = run(node, "mkdir -p a; echo said", gates=DEFAULT)
    assert (status["status"], status["reason"]) == ("failed", "empty_run")
    assert status["gates"] == {
        "exit": "passed", "changed": "failed", "conflict_markers": "not_run", "verify": "not_run",
    }  # fmt: skip
    assert status["salvage"] is None


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("echo a > a; echo why it failed; exit 3", "exit"),
        (r"printf '<<<<<<< a\nx\n=======\ny\n>>>>>>> b\n' > a", "gate:conflict_markers"),
        ("echo '# TODO later' > a", "gate:no_todo"),
        ("echo a > a", "gate:verify"),
    ],
)
def test_each_gate_can_say_no(node: Node, command: str, reason: str) -> None:
    gates = [*DEFAULT, "no_todo"]
    status = run(node, command, gates=gates, verify="echo checking; test -e b")
    assert (status["status"], status["reason"]) == ("failed", reason)
    assert status["files_changed"] == 1
    assert status["salvage"] == "p/salvage/t1-1-s1.tar.gz"
    if reason == "exit":
        assert status["error"] == "the agent ended with exit code 3: why it failed"
        assert status["exit_code"] == 3
    if reason == "gate:verify":
        assert "checking" in (node.task() / "wrapper.log").read_text()


def test_all_gates_can_pass(node: Node) -> None:
    gates = [*DEFAULT, "no_todo", "min_duration"]
    status = run(node, "echo a > a", gates=gates, verify="test -e a", min_duration=0)
    assert status["status"] == "completed"
    assert set(dict(status["gates"]).values()) == {"passed"}  # type: ignore[call-overload]
    failed = run_again(node, "echo b > a", gates=gates, min_duration=60)
    assert failed["reason"] == "gate:min_duration"


def run_again(node: Node, command: str, **fields: object) -> dict[str, object]:
    order = node.order(command, **fields)  # type: ignore[arg-type]
    node.once("start", order=order)
    return until(lambda: (s := node.final())["lease"] == order["lease"] and s, "its end") or {}


def test_a_removed_file_and_a_moved_one_are_changes(node: Node) -> None:
    node.code.mkdir(parents=True)
    for name in ("old", "kept"):
        (node.code / name).write_text(name)
        os.utime(node.code / name, (1, 1))
    (node.code / "node_modules").mkdir()
    status = run(node, "rm old; touch node_modules/x", gates=["changed"])
    assert (status["status"], status["files_changed"]) == ("completed", 1)
    status = run_again(node, "cp -p kept copy", gates=["changed"])
    assert (status["status"], status["files_changed"]) == ("completed", 1)


def test_files_outside_modifies_are_named_and_may_fail_the_task(node: Node) -> None:
    command = "mkdir -p src; echo a > src/a; echo b > B.md; echo c > c; echo o > $OUTPUT_DIR/o"
    modifies = ["src/*.py", "b.MD"]
    status = run(node, command, modifies=modifies)
    assert (status["status"], status["outside"]) == ("completed", ["c"])
    status = run_again(node, command, modifies=modifies, write_set="fail")
    assert (status["status"], status["reason"]) == ("failed", "write_set")


def test_paths_are_compared_normalised() -> None:
    files = ["Ä/x", "src/deep/y", "z", "a/b"]
    assert outside(files, ["a\u0308/X", "./src/", "a/**/c"]) == ["z"]
    assert outside(files, ["*"]) == []
    assert outside(files, []) == []


def test_the_hash_tells_the_content(node: Node) -> None:
    first = run(node, "echo a > $OUTPUT_DIR/a", gates=["changed"])
    same = run_again(node, "echo a > $OUTPUT_DIR/a", gates=["changed"])
    other = run_again(node, "echo b > $OUTPUT_DIR/a", gates=["changed"])
    assert first["artifact_hash"] == same["artifact_hash"] != other["artifact_hash"]


def test_a_rate_limit_hops_to_the_next_mode(node: Node) -> None:
    command = "test $API_MODE = c && echo x > $OUTPUT_DIR/x || { echo Rate Limit; exit 1; }"
    modes = [{"api_mode": mode} for mode in "abcd"]
    executor = {"rate_limit": "rate.limit", "modes": modes}
    status = run(node, command, executor=executor)
    assert (status["status"], status["api_mode"], status["attempts"]) == ("completed", "c", 3)


def test_hops_end_after_two_and_tell_the_reset_time(node: Node) -> None:
    command = "echo '429 rate limit, retry-after: 600'; exit 1"
    modes = [{"api_mode": mode} for mode in "abcd"]
    began = time.time()  # noqa: TID251
    status = run(node, command, executor={"rate_limit": "429", "modes": modes})
    assert (status["reason"], status["attempts"]) == ("rate_limited", 3)
    until_when = status["rate_limited_until"]
    assert isinstance(until_when, float)
    assert began + 600 <= until_when <= began + 700


def test_work_that_mentions_a_limit_is_not_a_limit(node: Node) -> None:
    status = run(node, "echo rate limit; echo x > x", executor={"rate_limit": "rate limit"})
    assert status["status"] == "completed"


def test_not_logged_in(node: Node) -> None:
    status = run(node, "echo Please log in first; exit 1", executor={"login": "please log in"})
    assert (status["reason"], status["error"]) == ("not_logged_in", "Please log in first")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Retry-After: 120", 120),
        ("try again in 20 minutes", 1200),
        ("wait 1h 30m please", 5400),
        ("limit resets at 2027-01-15T09:00:00Z", 3600),
        ("usage limit reached|1800003600", 3600),
        ("usage limit reached", None),
        ("in 400 days", None),
    ],
)
def test_reset_times_are_read(text: str, seconds: float | None) -> None:
    now = 1_800_000_000.0
    at = reset_time(text, now)
    assert at == (None if seconds is None else now + seconds)


def test_reset_time_of_day_is_the_next_one() -> None:
    now = time.mktime((2027, 1, 15, 14, 0, 0, 0, 0, -1))
    assert reset_time("Your limit resets at 3pm", now) == now + 3600
    assert reset_time("available again at 13:00", now) == now + 23 * 3600


def test_a_program_that_cannot_be_executed(node: Node) -> None:
    program = node.root.parent / "agent"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    node.once("start", order=node.order(str(program), "x"))
    status = node.final()
    assert status["reason"] == "executor_missing"
    assert str(program) in str(status["error"])


def test_an_archive_can_be_resumed_from(node: Node) -> None:
    status = run(node, "mkdir -p d; echo code > d/c; echo out > $OUTPUT_DIR/o; exit 1")
    archive = str(status["salvage"])
    with tarfile.open(node.root / archive) as tar:
        assert sorted(tar.getnames()) == ["code/d/c", "output/o"]
    (node.code / "d" / "c").unlink()
    status = run_again(node, "cat d/c $OUTPUT_DIR/o", resume={"archive": archive})
    assert status["status"] == "completed"
    assert (node.task() / "task.log").read_text() == "code\nout\n"


def test_a_hostile_archive_reaches_nothing_outside(node: Node, tmp_path: Path) -> None:
    archive = node.root / "p" / "salvage" / "x.tar.gz"
    archive.parent.mkdir(parents=True)
    (tmp_path / "bad").write_text("bad")
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("code/../../../evil", "/abs", "other/x", "code/fine"):
            tar.add(tmp_path / "bad", name)
        link = tarfile.TarInfo("code/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
    run(node, "true", resume={"archive": "p/salvage/x.tar.gz"})
    assert sorted(p.name for p in node.code.iterdir()) == ["fine"]
    assert not (tmp_path / "evil").exists()


def test_hostile_file_names_are_carried(node: Node) -> None:
    command = (
        r"""printf x > "$(printf 'a\nb')"; printf x > "$(printf '\377')"; printf x > '; rm -rf'"""
    )
    status = run(node, command, gates=["changed"], modifies=["none"])
    assert (status["status"], status["files_changed"]) == ("completed", 3)
    assert node.once("collect")["tasks"][0]["status"]["outside"] == ["; rm -rf", "a\nb", "\udcff"]


def test_cleanup_keeps_what_is_alive_or_not_acknowledged(node: Node) -> None:
    tasks = [{"project": "p", "folder": folder} for folder in ("t1", "t2", "gone")]
    done = node.order("echo made > $OUTPUT_DIR/x", folder="t1")
    alive = node.order("sleep 100", folder="t2")
    with node.serve() as serve:
        serve.start(done)
        serve.end("t1")
        serve.start(alive)
        kept = {t["folder"]: t["reason"] for t in serve.ask("cleanup", tasks=tasks)["kept"]}
        assert "acknowledged" in kept["t1"]
        assert "alive" in kept["t2"]
        serve.ask("ack", leases=[{k: done[k] for k in ("project", "folder", "lease")}])
        removed = serve.ask("cleanup", tasks=tasks)["removed"]
        assert [t["folder"] for t in removed] == ["t1", "gone"]
        assert not node.task("t1").exists()
        with tarfile.open(node.root / "p" / "salvage" / "t1-1-s1-folder.tar.gz") as tar:
            assert tar.getnames() == ["logs/task.log", "output/x"]
        assert serve.start(done)["reason"] == "void"


def test_progress_is_told(node: Node) -> None:
    busy = "echo line; echo x > $OUTPUT_DIR/x; touch $TASK_DIR/ready; while :; do :; done"
    with node.serve() as serve:
        serve.start(node.order(busy))
        until((node.task() / "ready").exists, "the agent at work")

        def burnt() -> bool:
            (task,) = serve.ask("collect")["tasks"]
            return bool(task["cpu"] > 0.05 and task["log_size"] == 5 and task["files_at"] > 0)

        until(burnt, "CPU time of the group")


def test_waiting_for_input_is_told(node: Node) -> None:
    with node.serve() as serve:
        serve.start(node.order("printf 'Continue? [y/N] '; exec sleep 100"))
        log = node.task() / "task.log"
        until(lambda: log.stat().st_size, "the prompt")
        os.utime(log, (1, 1))
        assert until(lambda: serve.ask("collect")["tasks"][0]["waiting_input"], "waiting_input")


def test_logs_are_read_in_pieces_and_never_through_links(node: Node) -> None:
    run(node, "printf 'a\\303\\244b\\nend'")
    where = {"project": "p", "folder": "t1"}
    first = node.once("log", **where, offset=0, limit=4)
    assert (first["text"], first["next"], first["size"]) == ("aäb", 4, 8)
    rest = node.once("log", **where, offset=first["next"], limit=100)
    assert (rest["text"], rest["next"], rest["alive"]) == ("\nend", 8, False)
    assert node.once("log", **where, offset=-6, limit=100)["text"] == "b\nend"
    assert node.once("log", **where, offset=99, limit=9)["text"] == ""
    (node.task() / "task.log").unlink()
    (node.task() / "task.log").symlink_to("/etc/passwd")
    assert node.once("log", **where, offset=0, limit=100)["text"] == ""
    assert node.once("log", project="p", folder="no", offset=0, limit=9)["size"] == 0


@pytest.mark.slow
def test_heartbeat_and_a_prompt_are_told_by_themselves(node: Node) -> None:
    with node.serve() as serve:
        serve.start(node.order("printf 'Password: '; exec sleep 100"))
        serve.wait(lambda m: m.get("event") == "task" and m["task"]["waiting_input"], patience=40)
        (task,) = serve.ask("collect")["tasks"]
        assert task["heartbeat_at"] is not None
