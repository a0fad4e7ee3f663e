"""The systemd unit: what it says, that systemd understands it, and what systemctl is asked."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dispatch_controller.service.service import Service, ServiceError, controller_argv
from dispatch_controller.service.systemd import UNIT, Systemd
from tests.service.standin import StandIn, systemctl


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return systemctl(tmp_path, monkeypatch)


def service(tmp_path: Path) -> Service:
    home = tmp_path / 'ho me 100% $x "q"'
    home.mkdir(exist_ok=True)
    environment = {"PATH": "/usr/bin:/bin", "DISPATCH_GRACE": "7 % $s"}
    return Service(home, controller_argv(home), 7, environment)


@pytest.fixture
def manager(tmp_path: Path) -> Systemd:
    return Systemd(service(tmp_path), system=False, folder=tmp_path / "units")


@pytest.mark.parametrize("system", [False, True])
def test_systemd_understands_the_unit(tmp_path: Path, system: bool) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        message = "needs systemd-analyze (apt-get install systemd)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    unit = Systemd(service(tmp_path), system=system, folder=tmp_path)
    unit.file.write_text(unit.content())
    scope = [] if system else ["--user"]
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [analyze, *scope, "--man=no", "--generators=no", "verify", str(unit.file)],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
        timeout=60,
    )
    complaints = [line for line in done.stderr.splitlines() if UNIT in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


@pytest.mark.parametrize("system", [False, True])
def test_the_unit_means_what_the_contract_says(tmp_path: Path, system: bool) -> None:
    text = Systemd(service(tmp_path), system=system, folder=tmp_path).content()
    unit = configparser.RawConfigParser(strict=False, comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(text)
    section = unit["Service"]
    assert section["Type"] == "notify"
    assert section["KillMode"] == "process"
    assert section["OOMPolicy"] == "continue"
    assert int(section["WatchdogSec"]) > 0
    assert int(section["TimeoutStopSec"]) > 7
    assert section["Restart"] == "on-failure"
    assert section["RestartPreventExitStatus"] == "75 78"
    assert section["NoNewPrivileges"] == "yes"
    assert ("User" in section) is system
    assert ("ProtectSystem" in section) is system
    assert unit["Install"]["WantedBy"] == ("multi-user.target" if system else "default.target")


def test_systemd_reads_back_the_very_words(tmp_path: Path) -> None:
    text = Systemd(service(tmp_path), system=False, folder=tmp_path).content()
    line = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    assert line.endswith('ho me 100%% $$x \\"q\\""')
    assert 'Environment="DISPATCH_GRACE=7 %% $s"' in text


def test_install_writes_reloads_enables_and_starts(manager: Systemd, program: StandIn) -> None:
    told: list[str] = []
    manager.install(told.append)
    assert manager.file.read_text() == manager.content()
    assert [call for call in program.calls if "show" not in call] == [
        ["--user", "daemon-reload"],
        ["--user", "enable", UNIT],
        ["--user", "restart", UNIT],
    ]
    assert any("enable-linger" in line for line in told)
    assert manager.status().running
    assert manager.status().pid == 77


def test_a_unit_of_the_machine_is_told_to_the_machines_manager(
    tmp_path: Path, program: StandIn
) -> None:
    manager = Systemd(service(tmp_path), system=True, folder=tmp_path / "units")
    told: list[str] = []
    manager.install(told.append)
    assert all("--user" not in call for call in program.calls)
    assert not any("linger" in line for line in told)


def test_installing_twice_changes_nothing_the_second_time(
    manager: Systemd, program: StandIn
) -> None:
    manager.install(lambda _: None)
    program.forget_calls()
    told: list[str] = []
    manager.install(told.append)
    assert told == [f"{UNIT} is installed and running already"]
    assert all("show" in call for call in program.calls)


def test_installing_again_starts_what_was_stopped(manager: Systemd, program: StandIn) -> None:
    manager.install(lambda _: None)
    program.set(active=False)
    manager.install(lambda _: None)
    assert program.state["active"] is True


def test_uninstall_stops_removes_and_is_harmless_twice(manager: Systemd, program: StandIn) -> None:
    manager.install(lambda _: None)
    manager.uninstall(lambda _: None)
    assert not manager.file.exists()
    assert program.state["active"] is False
    told: list[str] = []
    manager.uninstall(told.append)
    assert told == [f"{UNIT} is not installed"]


def test_restart_needs_an_install(manager: Systemd, program: StandIn) -> None:
    with pytest.raises(ServiceError, match="service install"):
        manager.restart(lambda _: None)
    manager.install(lambda _: None)
    program.forget_calls()
    manager.restart(lambda _: None)
    assert program.calls == [["--user", "restart", UNIT]]


@pytest.mark.parametrize(
    ("verb", "said", "advice"),
    [
        ("daemon-reload", "Failed to connect to bus: No medium found", "not by su"),
        ("enable", "Failed to enable unit: Access denied", "sudo"),
        ("restart", "Job for dispatch-controller.service failed", "journalctl --user -u"),
    ],
)
def test_what_systemctl_refuses_is_told_with_advice(
    manager: Systemd, program: StandIn, verb: str, said: str, advice: str
) -> None:
    program.set(fails={verb: said})
    with pytest.raises(ServiceError) as failed:
        manager.install(lambda _: None)
    assert said in str(failed.value)
    assert advice in str(failed.value)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, program: StandIn) -> None:
    (tmp_path / "file").write_text("")
    manager = Systemd(service(tmp_path), system=False, folder=tmp_path / "file")
    with pytest.raises(ServiceError, match="file"):
        manager.install(lambda _: None)


def test_a_unit_of_the_machine_needs_a_home_that_is_there(tmp_path: Path, program: StandIn) -> None:
    missing = Service(tmp_path / "none", ("run",), 30)
    with pytest.raises(ServiceError, match="dispatch-controller init"):
        Systemd(missing, system=True, folder=tmp_path / "units").install(lambda _: None)
    assert not (tmp_path / "none").exists()
    Systemd(missing, system=False, folder=tmp_path / "units").install(lambda _: None)
    assert (tmp_path / "none").is_dir()
