"""Commands about tasks, against a real HTTP server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dispatch_controller.cli import tasks
from tests.cli.conftest import Run
from tests.cli.controller import FakeController, row


def test_tasks_prints_a_list_for_programs(controller: FakeController, run: Run) -> None:
    reason = {"kind": "dependencies", "text": "waits for S00 (running)"}
    controller.tasks = [row("S01", reason=reason), row("S02", "running", node="mini")]
    result = run("tasks", "--json")
    assert result.code == 0
    assert json.loads(result.out) == controller.tasks
    assert result.err == ""


def test_tasks_tells_people_why_a_task_waits(controller: FakeController, run: Run) -> None:
    controller.tasks = [
        row("S01", reason={"kind": "dependencies", "text": "waits for S00"}),
        row("S02", "failed", error="exit 1\nsecond line", duration_seconds=3700.0, attempt=2),
    ]
    result = run("tasks")
    lines = result.out.splitlines()
    assert lines[1].split() == ["S01", "shop", "pending", "0", "2", "waits", "for", "S00"]
    assert " ".join(lines[2].split()) == "S02 shop failed 2 2 1h 1m exit 1 second line"
    assert "\x1b" not in result.out


def test_tasks_can_be_narrowed(controller: FakeController, run: Run) -> None:
    controller.tasks = [
        row("A"),
        row("B", "running", node="mini"),
        row("C", "running", node="maxi", project="other"),
    ]
    for options, expected in (
        (["--status", "running"], ["B", "C"]),
        (["--project", "other"], ["C"]),
        (["--node", "mini", "--status", "running"], ["B"]),
    ):
        found = json.loads(run("tasks", "--json", *options).out)
        assert [task["id"] for task in found] == expected


def test_of_ten_thousand_tasks_none_is_missed(controller: FakeController, run: Run) -> None:
    controller.tasks = [row(f"S{number:05}") for number in range(10_000)]
    found = json.loads(run("tasks", "--json").out)
    assert [task["id"] for task in found] == [task["id"] for task in controller.tasks]
    assert len(controller.requests) == 20
    assert len(run("tasks").out.splitlines()) == 10_001


def test_tasks_that_move_between_pages_are_read_again(controller: FakeController, run: Run) -> None:
    controller.tasks = [row(f"S{number:05}") for number in range(1200)]
    changes = [lambda: None, lambda: controller.tasks.__delitem__(slice(0, 100))]

    def change() -> None:
        if changes:
            changes.pop(0)()

    controller.before_page = change
    found = {task["id"] for task in json.loads(run("tasks", "--json").out)}
    assert found == {f"S{number:05}" for number in range(100, 1200)}


def test_text_of_a_task_is_neither_markup_nor_escape_sequence(
    controller: FakeController, run: Run
) -> None:
    controller.tasks = [row("S01", "failed", error="[red]x[/red] \x1b]0;title\x07\x1b[2Jend\x9b")]
    out = run("tasks").out
    assert "[red]x[/red] end" in out
    assert "\x1b" not in out
    assert "\x9b" not in out


def test_show_gives_one_task_with_its_events(controller: FakeController, run: Run) -> None:
    controller.tasks = [row("S01@shop", "failed", error="exit 1")]
    controller.events = [
        {
            "id": 1,
            "timestamp": "2026-01-01T00:00:00+00:00",
            "event_type": "claimed",
            "node": "mini",
            "details": {"lease": "mini:0a1b2c3d"},
        }
    ]
    assert json.loads(run("show", "S01@shop", "--json").out) == {
        **controller.tasks[0],
        "events": controller.events,
    }
    out = run("show", "S01@shop").out
    assert "exit 1" in out
    assert "claimed" in out
    assert "mini:0a1b2c3d" in out


def test_an_unknown_task_is_said_so(controller: FakeController, run: Run) -> None:
    for arguments in (("show", "S99"), ("logs", "S99")):
        result = run(*arguments)
        assert result.code == 1
        assert f"no task {arguments[1]}" in result.err
        assert result.out == ""


def test_retry_and_cancel_go_on_after_one_that_is_refused(
    controller: FakeController, run: Run
) -> None:
    controller.tasks = [row("A", "failed"), row("B", "completed"), row("C", "running")]
    result = run("retry", "A", "B", "Z", "C")
    assert result.code == 1
    assert result.out.splitlines() == ["A pending", "C pending"]
    assert "task B is completed: it cannot be changed\n" in result.err
    assert "no task Z\n" in result.err
    result = run("cancel", "A", "C", "--json")
    assert result.code == 0
    assert [task["status"] for task in json.loads(result.out)] == ["deadletter", "deadletter"]


def test_register_sends_absolute_paths_and_prints_what_came_of_it(
    controller: FakeController, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "specs").mkdir()
    monkeypatch.chdir(tmp_path)
    controller.registration = {
        "registered": 2,
        "updated": 1,
        "unchanged": 0,
        "documents": 3,
        "errors": [],
        "warnings": [{"file": "/specs/a.md", "reason": "unknown dependency S9"}],
    }
    result = run("register", "specs", "--project", "shop", "--json")
    assert result.code == 0
    assert json.loads(result.out) == controller.registration
    assert controller.requests[-1] == (
        "POST",
        "/api/v1/register",
        {"paths": [str(tmp_path / "specs")], "project": "shop"},
    )
    result = run("register", "specs")
    assert result.code == 0
    assert result.out == "2 registered, 1 updated, 0 unchanged, 3 documents\n"
    assert "warning: /specs/a.md: unknown dependency S9" in result.err


def test_register_ends_with_1_when_a_file_has_an_error(
    controller: FakeController, run: Run, tmp_path: Path
) -> None:
    controller.registration = {
        "registered": 1,
        "updated": 0,
        "unchanged": 0,
        "documents": 0,
        "errors": [{"file": "/specs/b.md", "line": 3, "reason": "modifies is missing"}],
        "warnings": [],
    }
    result = run("register", str(tmp_path))
    assert result.code == 1
    assert "error: /specs/b.md:3: modifies is missing" in result.err
    result = run("register", str(tmp_path), "--json")
    assert result.code == 1
    assert json.loads(result.out) == controller.registration


def test_register_of_what_is_not_there_is_a_mistake_on_the_command_line(
    controller: FakeController, run: Run
) -> None:
    assert run("register", "/no/such/folder").code == 2
    assert not controller.requests


def test_logs_prints_the_whole_log_in_pieces(
    controller: FakeController, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "LOG_PIECE", 6)
    controller.tasks = [row("S01", "completed")]
    controller.log = "one\ntwo\näö\nthree"
    result = run("logs", "S01")
    assert result.code == 0
    assert result.out == controller.log
    controller.log = ""
    assert run("logs", "S01").out == ""


def test_logs_followed_ends_with_the_task_and_starts_again_with_a_new_attempt(
    controller: FakeController, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "FOLLOW_INTERVAL", 0.0)
    controller.tasks = [row("S01", "running")]
    steps = [("one\n", True), ("one\n", True), ("one\ntwo\n", True), ("new\n", True)]
    steps += [("new\n", True), ("new\nend\n", False), ("new\nend\n", False)]

    def step() -> None:
        controller.log, controller.alive = steps.pop(0)

    controller.before_log = step
    result = run("logs", "-f", "S01")
    assert result.code == 0
    assert result.out == "one\ntwo\nnew\nend\n"
    assert "starts again" in result.err


@pytest.mark.parametrize("verb", ["show", "logs", "retry", "cancel"])
@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("", "it is empty"),
        ("../../etc", "SOLIDUS"),
        ("a/b?c#d%00", "SOLIDUS"),
        ("x\udcff", "U+DCFF"),
        ("a" * 10_000, "10000 characters"),
    ],
)
def test_what_is_no_id_is_never_asked_for(
    controller: FakeController, run: Run, verb: str, given: str, why: str
) -> None:
    result = run(verb, given)
    assert result.code == 1
    assert "is no task id" in result.err
    assert why in result.err
    assert not controller.requests


def test_arguments_that_are_not_utf_8_are_named(controller: FakeController, run: Run) -> None:
    result = run("tasks", "--project", "sh\udcffop")
    assert result.code == 2
    assert "'sh\\udcffop' is not UTF-8" in result.err


def test_cancelling_a_task_on_a_node_says_that_it_is_being_ended(
    controller: FakeController, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.tasks = [row("A", "running"), row("B", "pending")]
    monkeypatch.setattr(
        controller, "after_cancel", lambda task: "running" if task == "A" else "deadletter"
    )
    assert run("cancel", "A", "B").out == "A is being ended\nB deadletter\n"


def test_details_of_events_are_words_and_no_code(controller: FakeController, run: Run) -> None:
    controller.tasks = [row("A", "deadletter")]
    controller.events = [
        {
            "id": 1,
            "timestamp": "2026-01-01T00:00:00+00:00",
            "task_id": "A",
            "event_type": "task_failed",
            "node": None,
            "details": {"lease": None, "fenced": True, "gates": {"exit": "failed", "verify": None}},
        }
    ]
    assert "lease: none, fenced: yes, gates: (exit: failed, verify: none)" in run("show", "A").out


def test_a_terminal_too_narrow_for_a_table_gets_whole_words(
    controller: FakeController, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.tasks = [row("S02-agentforge-workflow-engine", reason={"text": "waits for S01"})]
    monkeypatch.setenv("FORCE_COLOR", "1")
    for columns, table in (("40", False), ("80", True)):
        monkeypatch.setenv("COLUMNS", columns)
        out = run("tasks").out
        assert ("─" in out) is table
        assert "pending" in out
        assert "waits for" in out
