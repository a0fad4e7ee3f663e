"""The commands of the service, as a user calls them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dispatch_controller.home import Home, lock_home
from tests.cli.conftest import Run
from tests.service.standin import launchctl, systemctl


@pytest.fixture(autouse=True)
def user_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    return tmp_path / "user"


@pytest.mark.parametrize("platform", ["launchd", "systemd"])
def test_a_dry_run_prints_file_and_commands_and_calls_nothing(
    run: Run, home: Home, user_home: Path, platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = run("service", "install", "--dry-run", "--platform", platform)
    assert result.code == 0
    assert str(home.root) in result.out
    commands = result.out.partition("# commands\n")[2].splitlines()
    if platform == "launchd":
        assert "com.oyster.guardian" in commands[0]
        assert commands[-1].startswith("launchctl bootstrap gui/")
    else:
        assert commands[0] == "systemctl --user daemon-reload"
    assert not user_home.exists()


def test_install_status_and_uninstall(
    run: Run, user_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl(tmp_path, monkeypatch)
    options = ["--platform", "systemd"]
    assert run("service", "status", *options).code == 69
    for _ in range(2):
        assert run("service", "install", *options).code == 0
    file = user_home / ".config/systemd/user/dispatch-controller.service"
    assert file.is_file()
    status = run("service", "status", "--json", *options)
    assert status.code == 0
    assert json.loads(status.out) == {
        "installed": True,
        "loaded": True,
        "running": True,
        "pid": 77,
        "state": "active (running)",
        "file": str(file),
    }
    assert run("service", "restart", *options).code == 0
    for _ in range(2):
        assert run("service", "uninstall", *options).code == 0
    assert not file.exists()


def test_a_controller_started_by_hand_must_end_first(
    run: Run, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = systemctl(tmp_path, monkeypatch)
    with lock_home(home):
        result = run("service", "install", "--platform", "systemd")
        assert result.code == 75
        assert f"pid {os.getpid()}" in result.err
        # The one that runs may also be the service itself.
        program.set(active=True)
        assert run("service", "install", "--platform", "systemd").code == 0


def test_what_the_manager_refuses_is_one_message_and_1(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launchctl(tmp_path, monkeypatch).set(no_session=True)
    result = run("service", "install", "--platform", "launchd")
    assert result.code == 1
    assert "Domain does not support specified action" in result.err
    assert "mistake in the program" not in result.err


def test_a_secret_never_gets_into_a_service_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCH_API_TOKEN", "s3cret-token")
    result = run("service", "install", "--dry-run", "--platform", "systemd")
    assert result.code == 1
    assert "api_token_file" in result.err
    assert "s3cret" not in result.out + result.err


def test_settings_of_the_shell_are_carried_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTROLLER_PORT", "8123")
    monkeypatch.setenv("DISPATCH_LOOPS__REAPER__INTERVAL", "61")
    out = run("service", "install", "--dry-run", "--platform", "systemd").out
    assert 'Environment="CONTROLLER_PORT=8123"' in out
    assert 'Environment="DISPATCH_LOOPS__REAPER__INTERVAL=61"' in out


def test_a_launchd_agent_is_never_of_the_whole_machine(run: Run) -> None:
    result = run("service", "install", "--dry-run", "--platform", "launchd", "--system")
    assert result.code == 1
    assert "systemd" in result.err
