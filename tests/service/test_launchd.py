"""The launchd agent: its file by launchd's documented keys, and what launchctl is asked."""

from __future__ import annotations

import plistlib
import sys
from pathlib import Path

import pytest

from dispatch_controller.service.former import LABELS
from dispatch_controller.service.launchd import LABEL, Launchd
from dispatch_controller.service.service import Service, ServiceError, controller_argv
from tests.service.standin import StandIn, launchctl

DOMAIN = "gui/501"
TARGET = f"{DOMAIN}/{LABEL}"

# man launchd.plist(5): the keys it documents, and the type of each value.
DOCUMENTED: dict[str, type | tuple[type, ...]] = {
    "Label": str,
    "Disabled": bool,
    "UserName": str,
    "GroupName": str,
    "Program": str,
    "ProgramArguments": list,
    "EnableGlobbing": bool,
    "KeepAlive": (bool, dict),
    "RunAtLoad": bool,
    "RootDirectory": str,
    "WorkingDirectory": str,
    "EnvironmentVariables": dict,
    "Umask": (int, str),
    "TimeOut": int,
    "ExitTimeOut": int,
    "ThrottleInterval": int,
    "InitGroups": bool,
    "StartInterval": int,
    "StandardInPath": str,
    "StandardOutPath": str,
    "StandardErrorPath": str,
    "Debug": bool,
    "WaitForDebugger": bool,
    "SoftResourceLimits": dict,
    "HardResourceLimits": dict,
    "Nice": int,
    "ProcessType": str,
    "AbandonProcessGroup": bool,
    "LowPriorityIO": bool,
    "LaunchOnlyOnce": bool,
    "LimitLoadToSessionType": (str, list),
    "SessionCreate": bool,
}
KEEP_ALIVE = {
    "SuccessfulExit": bool,
    "Crashed": bool,
    "NetworkState": bool,
    "PathState": dict,
    "OtherJobEnabled": dict,
}
LIMITS = {
    "Core", "CPU", "Data", "FileSize", "MemoryLock", "NumberOfFiles", "NumberOfProcesses",
    "ResidentSetSize", "Stack",
}  # fmt: skip


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return launchctl(tmp_path, monkeypatch)


@pytest.fixture
def manager(tmp_path: Path) -> Launchd:
    home = tmp_path / "home & <co>"
    service = Service(home, controller_argv(home), 30, {"PATH": "/usr/bin:/bin"})
    return Launchd(service, uid=501, folder=tmp_path / "LaunchAgents", sleep=lambda _: None)


def test_every_key_of_the_plist_is_documented_and_has_its_type(manager: Launchd) -> None:
    content = plistlib.loads(manager.content().encode())
    for key, value in content.items():
        assert key in DOCUMENTED
        kinds = DOCUMENTED[key]
        exact = kinds if isinstance(kinds, tuple) else (kinds,)
        assert type(value) in exact, key
    assert content["ProgramArguments"]
    assert all(type(word) is str and "\0" not in word for word in content["ProgramArguments"])
    assert all(type(value) is str for value in content["EnvironmentVariables"].values())
    assert set(content["KeepAlive"]) <= set(KEEP_ALIVE)
    assert all(type(value) is KEEP_ALIVE[key] for key, value in content["KeepAlive"].items())
    for limits in (content["SoftResourceLimits"],):
        assert set(limits) <= LIMITS
        assert all(type(value) is int and value > 0 for value in limits.values())
    assert content["ProcessType"] in ("Background", "Standard", "Adaptive", "Interactive")
    for key in ("WorkingDirectory", "StandardOutPath", "StandardErrorPath"):
        assert Path(content[key]).is_absolute()


def test_the_plist_means_what_the_contract_says(manager: Launchd, tmp_path: Path) -> None:
    content = plistlib.loads(manager.content().encode())
    assert content["Label"] == manager.file.stem == "com.oyster.dispatch-controller"
    assert content["RunAtLoad"] is True
    assert content["KeepAlive"] == {"SuccessfulExit": False}
    assert content["AbandonProcessGroup"] is True
    assert content["ExitTimeOut"] > 30
    assert content["ThrottleInterval"] >= 10
    assert content["ProgramArguments"][0] == sys.executable
    assert content["ProgramArguments"][-2:] == ["--home", str(tmp_path / "home & <co>")]
    assert content["StandardErrorPath"].startswith(str(tmp_path / "home & <co>" / "logs"))


def test_the_first_install_writes_enables_and_bootstraps(
    manager: Launchd, program: StandIn
) -> None:
    told: list[str] = []
    manager.install(told.append)
    assert plistlib.loads(manager.file.read_bytes())["Label"] == LABEL
    assert manager.file.stat().st_mode & 0o022 == 0
    verbs = [call for call in program.calls if call[0] != "print"]
    assert verbs == [["enable", TARGET], ["bootstrap", DOMAIN, str(manager.file)]]
    assert f"loaded {LABEL}" in told
    assert manager.status().running
    assert manager.status().pid == 4242


def test_installing_twice_changes_nothing_the_second_time(
    manager: Launchd, program: StandIn
) -> None:
    manager.install(lambda _: None)
    program.forget_calls()
    told: list[str] = []
    manager.install(told.append)
    assert told == [f"{LABEL} is installed and loaded already"]
    assert {call[0] for call in program.calls} == {"print"}


def test_a_changed_file_is_loaded_anew_once_the_old_one_has_ended(
    manager: Launchd, program: StandIn
) -> None:
    manager.install(lambda _: None)
    manager.file.write_text(manager.file.read_text().replace("/usr/bin", "/opt/bin"))
    program.set(slow=5)
    program.forget_calls()
    manager.install(lambda _: None)
    calls = program.calls
    booted_out = calls.index(["bootout", TARGET])
    loaded = calls.index(["bootstrap", DOMAIN, str(manager.file)])
    assert calls[booted_out + 1 : loaded].count(["print", TARGET]) == 5
    assert program.state["loaded"] == [TARGET]


def test_the_former_services_are_unloaded_and_their_files_kept(
    manager: Launchd, program: StandIn
) -> None:
    program.set(loaded=[f"{DOMAIN}/{LABELS[0]}", f"user/501/{LABELS[1]}"])
    for label in LABELS:
        manager.file.parent.mkdir(exist_ok=True)
        (manager.file.parent / f"{label}.plist").write_text("old")
    told: list[str] = []
    manager.install(told.append)
    assert program.state["loaded"] == [TARGET]
    assert ["disable", f"{DOMAIN}/{LABELS[0]}"] in program.calls
    assert ["disable", f"user/501/{LABELS[1]}"] in program.calls
    # This one was not loaded, but the next login would have done it.
    assert ["disable", f"{DOMAIN}/{LABELS[2]}"] in program.calls
    for label in LABELS:
        assert (manager.file.parent / f"{label}.plist").read_text() == "old"
        assert any(label in line for line in told)


def test_a_former_service_of_the_whole_machine_is_named_with_its_command(
    manager: Launchd, program: StandIn
) -> None:
    program.set(loaded=["system/com.oyster.reaper"], denied=["disable", "bootout"])
    with pytest.raises(ServiceError) as failed:
        manager.install(lambda _: None)
    assert "sudo launchctl bootout system/com.oyster.reaper" in str(failed.value)
    assert "not permitted" in str(failed.value)
    assert not manager.file.exists()


def test_bootstrap_without_a_login_says_what_to_do(manager: Launchd, program: StandIn) -> None:
    program.set(no_session=True)
    with pytest.raises(ServiceError, match="Log in at the machine's own screen"):
        manager.install(lambda _: None)


def test_bootstrap_without_permission_says_what_launchctl_said(
    manager: Launchd, program: StandIn
) -> None:
    program.set(denied=["bootstrap"])
    with pytest.raises(ServiceError, match="1: Operation not permitted"):
        manager.install(lambda _: None)


def test_a_service_that_somebody_else_loads_meanwhile_counts_as_loaded(
    manager: Launchd, program: StandIn
) -> None:
    program.set(raced=True)
    manager.install(lambda _: None)
    assert program.state["loaded"] == [TARGET]


def test_uninstall_unloads_removes_and_tells_how_to_load_the_former_ones(
    manager: Launchd, program: StandIn
) -> None:
    manager.install(lambda _: None)
    former = manager.file.parent / f"{LABELS[0]}.plist"
    former.write_text("old")
    told: list[str] = []
    manager.uninstall(told.append)
    assert program.state["loaded"] == []
    assert not manager.file.exists()
    assert former.exists()
    command = f"launchctl enable gui/501/{LABELS[0]}; launchctl bootstrap gui/501 {former}"
    assert any(command in line for line in told)


def test_uninstall_twice_and_without_an_install_is_harmless(
    manager: Launchd, program: StandIn
) -> None:
    told: list[str] = []
    manager.uninstall(told.append)
    assert told == [f"{LABEL} is not installed"]
    manager.install(lambda _: None)
    manager.uninstall(lambda _: None)
    told.clear()
    manager.uninstall(told.append)
    assert told == [f"{LABEL} is not installed"]


def test_uninstall_removes_the_file_of_a_service_that_is_not_loaded(
    manager: Launchd, program: StandIn
) -> None:
    manager.install(lambda _: None)
    program.set(loaded=[])
    manager.uninstall(lambda _: None)
    assert not manager.file.exists()


def test_restart_lets_it_end_and_loads_it_again(manager: Launchd, program: StandIn) -> None:
    with pytest.raises(ServiceError, match="service install"):
        manager.restart(lambda _: None)
    manager.install(lambda _: None)
    program.forget_calls()
    manager.restart(lambda _: None)
    verbs = [call[0] for call in program.calls if call[0] != "print"]
    assert verbs == ["bootout", "enable", "bootstrap"]


def test_a_service_that_does_not_end_is_an_error(manager: Launchd, program: StandIn) -> None:
    manager.install(lambda _: None)
    program.set(slow=10_000)
    with pytest.raises(ServiceError, match="does not end"):
        manager.uninstall(lambda _: None)
    assert manager.file.exists()


def test_a_machine_without_launchctl_is_told(
    manager: Launchd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServiceError, match="no launchctl"):
        manager.install(lambda _: None)


def test_status_of_what_is_not_there(manager: Launchd, program: StandIn) -> None:
    found = manager.status()
    assert (found.installed, found.loaded, found.running, found.pid) == (False, False, False, None)
    assert found.state == "not loaded"
