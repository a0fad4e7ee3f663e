"""The command doctor: exit codes, what people and programs get, --fix."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dispatch_controller.home import Home, lock_home
from tests.cli.conftest import Run
from tests.cli.controller import FakeController


@pytest.fixture(autouse=True)
def well(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the home a healthy one."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "df").write_text("#!/bin/sh\necho /dev/disk 1000 500 500 50% /\n")
    (programs / "df").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    home.settings.write_text("port = 0\n")
    home.nodes.write_text('[{"name": "here", "executor": "shell"}]')


def test_a_healthy_home_ends_with_0_and_says_so(run: Run, home: Home) -> None:
    result = run("doctor")
    assert result.code == 0
    assert f"nothing to mend in {home.root}" in result.out
    assert json.loads(run("doctor", "--json").out) == {
        "ok": True,
        "controller": "not running",
        "findings": [],
        "fixed": [],
    }


def test_a_fault_ends_with_1_and_comes_with_what_to_do(run: Run, home: Home) -> None:
    home.nodes.write_text("[]")
    result = run("doctor")
    assert result.code == 1
    assert "no node has a slot" in result.out
    assert "→ add a node" in result.out
    result = run("doctor", "--json")
    assert result.code == 1
    (finding,) = json.loads(result.out)["findings"]
    assert set(finding) == {"check", "severity", "subject", "text", "fix"}


def test_fix_mends_what_is_safe_and_tells_it(run: Run, home: Home) -> None:
    home.controller.write_text("{}")
    assert run("doctor").code == 1
    answer = run("doctor", "--fix", "--json")
    assert answer.code == 0
    (fixed,) = json.loads(answer.out)["fixed"]
    assert fixed["subject"] == str(home.controller)
    assert not home.controller.exists()
    home.controller.write_text("{}")
    result = run("doctor", "--fix")
    assert result.code == 0
    assert "mended" in result.out


def test_notes_of_a_migration_are_nothing_to_mend(run: Run) -> None:
    result = run("doctor", "--migrate")
    assert result.code == 0
    assert "the first start makes it" in result.out
    assert 'host = "0.0.0.0"' in result.out


def test_settings_with_problems_are_findings(run: Run, home: Home) -> None:
    home.settings.write_text("prot = 0\nhost = 3\n")
    result = run("doctor", "--json")
    assert result.code == 1
    assert len(json.loads(result.out)["findings"]) == 2


def test_a_running_controller_is_asked(run: Run, home: Home, controller: FakeController) -> None:
    with lock_home(home):
        result = run("doctor", "--json")
    assert json.loads(result.out)["controller"] == "running"
    asked = [path for _, path, _ in controller.requests]
    assert asked == ["/health", "/v1/status", "/api/v1/nodes"]


def test_a_controller_that_holds_the_home_without_an_address_is_told(run: Run, home: Home) -> None:
    with lock_home(home):
        result = run("doctor")
    assert result.code == 1
    assert f"pid {os.getpid()}" in result.out
    assert "does not answer" in result.out
