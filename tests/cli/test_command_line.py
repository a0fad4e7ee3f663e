"""The program as a whole: exit codes, messages, what needs no controller."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from dispatch_controller import __version__
from dispatch_controller.cli import output
from dispatch_controller.cli.exit_codes import ExitCode
from dispatch_controller.home import Home
from tests.cli.conftest import Run
from tests.cli.controller import FakeController, row

DOCS = Path(__file__).parent.parent.parent / "docs"


def program(home: Home, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m dispatch_controller` as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "dispatch_controller", *arguments],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "DISPATCH_HOME": str(home.root), **environ},
        timeout=60,
        check=False,
    )


def test_the_program_tells_its_version(home: Home) -> None:
    result = program(home, "--version")
    assert (result.returncode, result.stdout) == (0, f"{__version__}\n")


def test_a_command_without_a_controller_ends_with_69_and_no_traceback(home: Home) -> None:
    result = program(home, "tasks", "--json")
    assert result.returncode == 69
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "dispatch-controller run --home" in result.stderr


def test_settings_with_problems_end_with_78_and_name_them_all(home: Home) -> None:
    for command in ("run", "config"):
        result = program(home, command, CONTROLLER_PORT="http", DISPATCH_GRACE="-1")
        assert result.returncode == 78
        assert result.stdout == ""
        assert "environment CONTROLLER_PORT: port:" in result.stderr
        assert "environment DISPATCH_GRACE: grace:" in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["tasks", "--status", "resting"],
        ["show"],
        ["retry"],
        ["run", "--port", "70000"],
        ["nodes", "burn", "mini"],
    ],
)
def test_a_command_line_that_is_not_understood_ends_with_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert result.err
    assert result.out == ""


def test_config_prints_value_and_place_and_hides_secrets(
    run: Run, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCH_API_TOKEN", "s3cret")
    home.settings.write_text("[loops.reaper]\ninterval = 61\n")
    rows = {row["name"]: row for row in json.loads(run("config", "--json").out)}
    assert rows["loops.reaper.interval"]["value"] == 61
    assert rows["loops.reaper.interval"]["source"] == str(home.settings)
    assert rows["api_token"]["value"] == "(hidden)"
    assert rows["home"]["source"] == "environment DISPATCH_HOME"
    result = run("config")
    assert result.code == 0
    assert "s3cret" not in result.out
    assert "loops.reaper.interval" in result.out


def test_a_mistake_in_the_program_is_one_message(controller: FakeController, run: Run) -> None:
    controller.tasks = [row("S01")]
    del controller.tasks[0]["priority"]
    result = run("tasks")
    assert result.code == 70
    assert "mistake in the program: KeyError" in result.err
    assert "Traceback" not in result.err


def test_a_terminal_gets_colour_and_a_pipe_does_not(
    controller: FakeController, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.tasks = [row("S01", "failed")]
    assert "\x1b[" not in run("tasks").out
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system="standard", width=100)
    monkeypatch.setattr(output, "Console", lambda **_: console)
    assert run("tasks").code == 0
    assert "\x1b[31mfailed" in screen.getvalue()


def test_a_piped_line_is_never_cut(controller: FakeController, run: Run) -> None:
    controller.tasks = [row("S01", "failed", error="word " * 200)]
    assert "word " * 199 in run("tasks").out


def test_a_reader_that_leaves_early_is_no_error(controller: FakeController, home: Home) -> None:
    controller.tasks = [row(f"S{number:05}") for number in range(3000)]
    command = f"{sys.executable} -m dispatch_controller tasks --json | head -n 1"
    environ = {"PATH": os.environ["PATH"], "DISPATCH_HOME": str(home.root)}
    result = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env=environ, check=True, timeout=60
    )
    assert result.stdout == "[\n"
    assert "Traceback" not in result.stderr
    assert "mistake" not in result.stderr


def test_following_a_log_ends_quietly_with_ctrl_c(controller: FakeController, home: Home) -> None:
    controller.tasks, controller.log, controller.alive = [row("S01", "running")], "one\n", True
    with subprocess.Popen(
        [sys.executable, "-m", "dispatch_controller", "logs", "-f", "S01"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "DISPATCH_HOME": str(home.root)},
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "one\n"
        following.send_signal(signal.SIGINT)
        out, err = following.communicate(timeout=30)
    assert (following.returncode, out, err) == (130, "", "")


def test_log_text_keeps_colours_on_a_terminal_and_drops_what_moves_the_cursor() -> None:
    text = "\x1b[31mred\x1b[0m\x1b[2J\x1b]52;c;eA==\x07 tab\tend\r\n"
    assert output.log_text(text, terminal=True) == "\x1b[31mred\x1b[0m tab\tend\n"
    assert output.log_text(text, terminal=False) == text


def test_times_are_told_to_the_second() -> None:
    assert output.time_cell("2026-01-01T00:00:00.123456+00:00").plain == "2026-01-01 00:00:00Z"
    assert output.time_cell(1767225600.9).plain == "2026-01-01 00:00:00Z"
    assert output.time_cell(None).plain == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.4, "0s"), (59, "59s"), (60, "1m"), (3700, "1h 1m"), (180000, "2d 2h")],
)
def test_durations_are_short(seconds: float | None, text: str) -> None:
    assert output.short_duration(seconds) == text


def test_every_exit_code_is_documented() -> None:
    page = (DOCS / "operations.md").read_text("utf-8")
    for code in ExitCode:
        assert f"| {int(code)} |" in page
