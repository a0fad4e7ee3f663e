"""The log's level is changed while the controller runs."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import Starter
from tests.e2e.controller import eventually
from tests.e2e.homes import makes, write_home, write_spec


def test_the_level_of_the_log_is_changed_while_it_runs(
    controller_on: Starter, tmp_path: Path
) -> None:
    controller = controller_on(write_home(tmp_path / "home", {"here": 1})).start()

    def lines(level: str) -> list[str]:
        return [line["event"] for line in controller.log() if line["level"] == level]

    def run(task: str) -> None:
        write_spec(tmp_path / "work", task, makes())
        controller.register(tmp_path / "work")
        controller.wait(task, "completed")

    run("A")
    assert lines("debug") == []
    said = controller.command("log-level", "debug")
    assert (said.returncode, said.stdout) == (0, "logs from debug on\n")
    run("B")
    eventually(lambda: "claimed" in lines("debug"), 5, controller.log)

    assert controller.command("log-level", "error").returncode == 0
    before = len(controller.log())
    run("C")
    assert len(controller.log()) == before


def test_no_such_level_is_refused_and_changes_nothing(
    controller_on: Starter, tmp_path: Path
) -> None:
    controller = controller_on(write_home(tmp_path / "home", {"here": 1})).start()
    assert controller.command("log-level", "loud").returncode == 2
    answer = controller.answer("POST", "/api/v1/log-level", json={"level": "loud"})
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid"
