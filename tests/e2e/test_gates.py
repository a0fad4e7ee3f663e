"""An agent's "done" is not believed: what the gates say becomes the task's state."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.controller import Controller, alive, eventually
from tests.e2e.homes import makes, write_home, write_spec
from tests.sshd import SshFleet


@pytest.fixture(scope="module")
def controller(
    shared_fleet: SshFleet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Controller]:
    shared_fleet.add("n1")
    home = write_home(
        tmp_path_factory.mktemp("gates") / "home",
        {"n1": 4},
        shared_fleet,
        projects={"checked": {"gates": ["exit", "verify"], "verify": "test -e agreed"}},
    )
    controller = Controller(home)
    try:
        yield controller.start()
    finally:
        controller.close()


def _failures(controller: Controller, task_id: str) -> list[dict[str, object]]:
    events = sorted(controller.task(task_id)["events"], key=lambda event: event["id"])
    return [event["details"] for event in events if event["event_type"] == "task_failed"]


def test_success_without_a_change_is_an_empty_run_and_twice_is_the_end(
    controller: Controller,
) -> None:
    folder = controller.home.parent / "empty"
    write_spec(folder, "E01-nothing", "echo all done!", project="empty", max_retries=5)
    controller.register(folder)
    row = controller.wait("E01-nothing", "deadletter")
    assert row["attempt"] == 2
    assert [failure["reason"] for failure in _failures(controller, "E01-nothing")] == [
        "empty_run", "empty_run",
    ]  # fmt: skip


def test_the_specs_own_verify_decides(controller: Controller) -> None:
    folder = controller.home.parent / "verify"
    for name, text in (("V01-right", "42"), ("V02-wrong", "41")):
        write_spec(
            folder, name, makes("answer", text), project="verify",
            verify='grep -q 42 "$OUTPUT_DIR/answer"', max_retries=2,
        )  # fmt: skip
    controller.register(folder)
    assert controller.wait("V01-right", "completed")["files_changed"] == 1
    row = controller.wait("V02-wrong", "deadletter")
    assert row["attempt"] == 2
    failures = _failures(controller, "V02-wrong")
    assert [(f["reason"], f["cause"]) for f in failures] == [("gate:verify", "task")] * 2
    assert failures[0]["gates"] == {
        "exit": "passed", "changed": "passed", "conflict_markers": "passed", "verify": "failed",
    }  # fmt: skip


def test_a_projects_gates_and_verify_replace_the_defaults(controller: Controller) -> None:
    folder = controller.home.parent / "checked"
    write_spec(folder, "G01-agreed", "touch agreed", project="checked", modifies=["agreed"])
    controller.register(folder)
    controller.wait("G01-agreed", "completed")
    shown = controller.task("G01-agreed")["events"]
    (gates,) = [e["details"]["gates"] for e in shown if e["event_type"] == "task_completed"]
    assert gates == {"exit": "passed", "verify": "passed"}


def test_conflict_markers_in_what_was_written_fail_the_task(controller: Controller) -> None:
    folder = controller.home.parent / "markers"
    script = "printf '<<<<<<< HEAD\\na\\n=======\\nb\\n>>>>>>> other\\n' > merged.txt"
    write_spec(folder, "M01-markers", script, project="markers", modifies=["merged.txt"],
               max_retries=0)  # fmt: skip
    controller.register(folder)
    row = controller.wait("M01-markers", "deadletter")
    assert _failures(controller, "M01-markers")[0]["reason"] == "gate:conflict_markers", row


def test_what_a_later_attempt_makes_counts(controller: Controller) -> None:
    folder = controller.home.parent / "later"
    marker = folder / "marker"
    script = f"if [ ! -e {marker} ]; then touch {marker}; exit 3; fi\n{makes()}"
    write_spec(folder, "L01-later", script, project="later")
    controller.register(folder)
    row = controller.wait("L01-later", "completed")
    assert row["attempt"] == 2
    assert [failure["exit_code"] for failure in _failures(controller, "L01-later")] == [3]


@pytest.mark.slow
def test_a_task_over_its_time_limit_is_ended_with_all_it_started(controller: Controller) -> None:
    folder = controller.home.parent / "timeout"
    started = folder / "started"
    script = f"echo $$ >> {started}\nsleep 900 & echo $! >> {started}\nwait"
    write_spec(folder, "T01-long", script, project="timeout", timeout_minutes=1, max_retries=0)
    controller.register(folder)
    (failure,) = eventually(lambda: _failures(controller, "T01-long"), 110, controller.counts)
    assert (failure["reason"], failure["exit_code"]) == ("timeout", 124)
    for pid in started.read_text().split():
        assert not alive(int(pid))
    controller.command("cancel", "T01-long")
