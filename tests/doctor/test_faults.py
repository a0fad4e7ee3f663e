"""Doctor finds what was planted, says how to mend it, and finds nothing where all is well."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dispatch_controller.doctor.finding import Severity
from dispatch_controller.fleet.bundle import build
from tests.doctor.conftest import DF, Place, script
from tests.service.standin import launchctl
from tests.sshd import SshFleet


def test_a_healthy_home_has_nothing_to_mend(place: Place) -> None:
    report = place.look()
    assert report.findings == ()
    assert report.well
    assert not report.running


def test_a_new_home_without_a_database_has_nothing_to_mend(place: Place) -> None:
    place.home.database.unlink()
    assert place.look().findings == ()
    assert not place.home.database.exists()


Plant = Callable[[Place], None]


def no_home(place: Place) -> None:
    place.home.root.rename(place.home.root.with_name("moved"))


def folder_is_a_file(place: Place) -> None:
    place.home.logs.rmdir()
    place.home.logs.write_text("")


def damaged_owner(place: Place) -> None:
    place.home.owner.write_text("nobody\n")


def open_home(place: Place) -> None:
    place.home.root.chmod(0o777)


def unknown_setting(place: Place) -> None:
    place.home.settings.write_text("prot = 0\n")


def reachable_without_token(place: Place) -> None:
    place.home.settings.write_text('host = "0.0.0.0"\n')


def no_nodes_file(place: Place) -> None:
    place.home.nodes.unlink()


def nodes_not_json(place: Place) -> None:
    place.home.nodes.write_text("[{]")


def node_of_wrong_type(place: Place) -> None:
    place.nodes({"name": "here", "executor": "shell"}, {"name": "mini", "slots": "4"})


def unknown_executor(place: Place) -> None:
    place.nodes({"name": "here", "executor": "shell"}, {"name": "too", "executor": "shelf"})


def no_slots(place: Place) -> None:
    place.nodes({"name": "here", "executor": "shell", "slots": 0})


def projects_of_wrong_type(place: Place) -> None:
    place.home.projects.write_text('{"shop": {"gates": ["luck"]}}')


def git_without_repo(place: Place) -> None:
    place.home.projects.write_text('{"shop": {"sync_mode": "git"}}')


def checkout_is_gone(place: Place) -> None:
    place.home.projects.write_text('{"shop": {"repo_local": "gone"}}')


def specs_are_gone(place: Place) -> None:
    place.home.projects.write_text('{"shop": {"specs_dir": "gone"}}')


def bad_spec(place: Place) -> None:
    place.spec("S03").write_text("---\ntask_id: S03\nmodifies: []\n---\n")


def same_id_twice(place: Place) -> None:
    folder = place.home.root / "specs" / "shop" / "more"
    folder.mkdir()
    (folder / "S01.md").write_text(place.spec("S01").read_text())


def cycle(place: Place) -> None:
    place.spec("S01", "S02")


def unknown_dependency(place: Place) -> None:
    place.spec("S02", "S99")


def executor_nobody_has(place: Place) -> None:
    path = place.spec("S02")
    path.write_text(path.read_text().replace("executor: shell", "executor: claude"))


def column_missing(place: Place) -> None:
    with closing(sqlite3.connect(place.home.database)) as conn:
        conn.execute("ALTER TABLE tasks DROP COLUMN lease_owner")


def younger_table_missing(place: Place) -> None:
    with closing(sqlite3.connect(place.home.database)) as conn:
        conn.execute("DROP TABLE node_reputation")


def no_database(place: Place) -> None:
    place.home.database.write_text("these are no tables " * 100)


def damaged_database(place: Place) -> None:
    with closing(sqlite3.connect(place.home.database)) as conn, conn:
        conn.executemany(
            "INSERT INTO events (timestamp, details) VALUES ('now', ?)",
            [("x" * 500,) for _ in range(2000)],
        )
    with closing(sqlite3.connect(place.home.database)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with place.home.database.open("r+b") as file:
        file.seek(40 * 4096)
        file.write(b"\xff" * 4096 * 30)


def readable_token(place: Place) -> None:
    token = place.home.root / "token"
    token.write_text("s3cret-s3cret\n")
    token.chmod(0o644)
    place.home.settings.write_text(f'port = 0\napi_token_file = "{token}"\n')


def readable_key(place: Place) -> None:
    key = Path("~/.ssh/id_ed25519").expanduser()
    key.write_text("key")
    key.chmod(0o640)


def readable_settings_with_a_token(place: Place) -> None:
    place.home.settings.write_text('port = 0\napi_token = "s3cret-s3cret"\n')
    place.home.settings.chmod(0o644)


def left_over_controller(place: Place) -> None:
    content = {"pid": 1, "url": "http://127.0.0.1:9", "started_at": "", "version": "0"}
    place.home.controller.write_text(json.dumps(content))


def full_node(place: Place) -> None:
    script(place.programs / "df", DF.format(used=990000, free=10000))


def nearly_full_node(place: Place) -> None:
    script(place.programs / "df", DF.format(used=960000, free=40000))


def clock_ahead(place: Place) -> None:
    script(place.programs / "date", "#!/bin/sh\necho 4102444800\n")


def clock_behind(place: Place) -> None:
    script(place.programs / "date", "#!/bin/sh\necho 1000000000\n")


def old_python(place: Place) -> None:
    script(place.programs / "python3", "#!/bin/sh\necho 3.8.10\n")


def broken_python(place: Place) -> None:
    script(place.programs / "python3", "#!/bin/sh\nexit 1\n")


def agent_missing(place: Place) -> None:
    place.nodes({"name": "here", "executor": "shell"}, {"name": "too", "executor": "aider"})


def damaged_wrapper(place: Place) -> None:
    folder = Path("~/dispatch/.dispatch").expanduser()
    folder.mkdir(parents=True)
    (folder / build().name).write_bytes(build().content[:-100])


def cluster_wrapper_missing(place: Place) -> None:
    place.home.settings.write_text('port = 0\ntask_wrapper = "~/bin/task-wrapper.sh"\n')


def work_dir_not_writable(place: Place) -> None:
    # Not even root makes folders in a file.
    place.nodes(
        {"name": "here", "executor": "shell", "work_dir": f"{place.home.database}/dispatch"}
    )


def ssh_refused(place: Place) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    place.nodes(
        {"name": "here", "executor": "shell"},
        {"name": "mini", "executor": "shell", "ssh_host": f"127.0.0.1:{port}"},
    )


def hostile_ssh_host(place: Place) -> None:
    place.nodes(
        {"name": "here", "executor": "shell"},
        {"name": "mini", "executor": "shell", "ssh_host": "-oProxyCommand=true"},
    )


def worker_is_down(place: Place) -> None:
    place.nodes(
        {"name": "here", "executor": "shell"},
        {"name": "lab", "executor": "shell", "worker_url": "http://127.0.0.1:9"},
    )


@pytest.mark.parametrize(
    ("plant", "check", "severity", "text", "fix"),
    [
        (no_home, "home", "error", "does not exist", "dispatch-controller init"),
        (folder_is_a_file, "home", "error", "must be a folder", "mv "),
        (damaged_owner, "home", "error", "16 hex digits", "backup"),
        (open_home, "permissions", "error", "others can write", "chmod go-w"),
        (unknown_setting, "settings", "error", "did you mean port?", "mend"),
        (reachable_without_token, "settings", "error", "a token is required", "mend"),
        (no_nodes_file, "nodes.json", "error", "does not exist", "init"),
        (nodes_not_json, "nodes.json", "error", "not JSON", "mend"),
        (node_of_wrong_type, "nodes.json", "error", "mini: slots", "mend"),
        (unknown_executor, "nodes.json", "error", "executor shelf", "executors.shelf"),
        (no_slots, "nodes.json", "error", "no node has a slot", "slots"),
        (projects_of_wrong_type, "projects.json", "error", "shop: gates", "mend"),
        (git_without_repo, "projects.json", "error", "repo_url", "repo_url"),
        (checkout_is_gone, "projects.json", "error", "repo_local", "repo_local"),
        (specs_are_gone, "projects.json", "error", "specs_dir", "specs_dir"),
        (bad_spec, "specs", "error", "modifies", "mend"),
        (same_id_twice, "specs", "error", "already the task of", "mend"),
        (cycle, "specs", "warning", "cycle", "depends_on"),
        (unknown_dependency, "specs", "warning", "S99", "depends_on"),
        (executor_nobody_has, "specs", "warning", "executor claude", "nodes.json"),
        (column_missing, "database", "error", "column tasks.lease_owner", "restore"),
        (younger_table_missing, "database", "warning", "node_reputation", "nothing has"),
        (no_database, "database", "error", "not a database", "snapshot"),
        (damaged_database, "database", "error", "", "snapshot"),
        (readable_token, "permissions", "warning", "read by others", "chmod 600"),
        (readable_key, "permissions", "warning", "read by others", "chmod 600"),
        (readable_settings_with_a_token, "permissions", "warning", "by others", "chmod 600"),
        (left_over_controller, "controller", "warning", "killed", "rm "),
        (full_node, "node", "error", "99% full and takes no task", "room"),
        (nearly_full_node, "node", "warning", "96% full", "room"),
        (clock_ahead, "node", "warning", "s ahead", "NTP"),
        (clock_behind, "node", "warning", "s behind", "NTP"),
        (old_python, "node", "error", "3.8.10", "Python 3.9"),
        (broken_python, "node", "error", "does not run", "Python 3.9"),
        (agent_missing, "node", "error", "no program aider", "install it"),
        (damaged_wrapper, "node", "error", "not what this release brings", "rm ~/dispatch"),
        (cluster_wrapper_missing, "node", "error", "task-wrapper.sh", "own"),
        (work_dir_not_writable, "node", "error", "cannot be written", "work_dir"),
        (ssh_refused, "node", "error", "cannot be reached", "ssh ssh://127.0.0.1:"),
        (hostile_ssh_host, "node", "error", "is not an alias", "do what it says"),
        (worker_is_down, "node", "error", "does not answer", "curl"),
    ],
)
def test_a_planted_fault_is_found_and_nothing_else(
    place: Place, plant: Plant, check: str, severity: str, text: str, fix: str
) -> None:
    plant(place)
    report = place.look()
    assert not report.well
    assert {finding.check for finding in report.findings} == {check}, report.findings
    finding = report.findings[0]
    assert finding.severity == severity
    assert text in finding.text
    assert fix in finding.fix
    assert finding.subject


def test_a_process_that_holds_the_database_is_named(place: Place) -> None:
    hold = "import sys; file = open(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", hold, str(place.home.database)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        (finding,) = place.look().findings
        other.communicate()
    assert (finding.check, finding.severity) == ("processes", "warning")
    assert finding.subject == f"pid {other.pid}"
    assert f"kill {other.pid}" in finding.fix


def test_a_former_daemon_that_holds_the_database_is_named(place: Place, tmp_path: Path) -> None:
    daemon = tmp_path / "reaper_daemon.py"
    daemon.write_text(
        "import sys\nfile = open(sys.argv[1])\nprint('held', flush=True)\nsys.stdin.read()\n"
    )
    argv = [sys.executable, str(daemon), str(place.home.database)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        (finding,) = place.look().findings
        other.communicate()
    assert finding.severity is Severity.ERROR
    assert "com.oyster.reaper" in finding.text


def test_former_services_that_are_loaded_come_with_their_command(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = f"gui/{os.getuid()}/com.oyster.guardian"
    launchctl(tmp_path, monkeypatch).set(loaded=[target])
    (finding,) = place.look().findings
    assert finding.subject == "com.oyster.guardian"
    assert f"launchctl bootout {target}" in finding.fix


def test_a_port_in_use_is_found(place: Place) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        place.home.settings.write_text(f"port = {port}\n")
        (finding,) = place.look().findings
    assert finding.check == "port"
    assert "another program listens" in finding.text
    assert f"lsof -i :{port}" in finding.fix


def test_an_address_of_another_machine_is_found(place: Place) -> None:
    place.home.settings.write_text('host = "192.0.2.1"\napi_token = "s3cret-s3cret"\n')
    place.home.settings.chmod(0o600)
    (finding,) = place.look().findings
    assert finding.check == "port"
    assert "address of this machine" in finding.fix


@pytest.fixture
def over_ssh(place: Place, ssh_fleet: SshFleet) -> Callable[..., None]:
    """Make the home's only node one that is reached by SSH."""

    def use(name: str) -> None:
        place.home.settings.write_text(
            f'port = 0\n[ssh]\nconfig = "{ssh_fleet.config}"\n'
            f'known_hosts = "{ssh_fleet.known_hosts}"\n'
        )
        place.nodes({"name": name, "ssh_host": name, "executor": "shell"})

    return use


def test_a_healthy_node_reached_by_ssh_has_nothing_to_mend(
    place: Place, ssh_fleet: SshFleet, over_ssh: Callable[[str], None]
) -> None:
    ssh_fleet.add("mini")
    over_ssh("mini")
    assert place.look().findings == ()


def test_an_unknown_host_key_comes_with_the_command_that_accepts_it(
    place: Place, ssh_fleet: SshFleet, over_ssh: Callable[[str], None]
) -> None:
    node = ssh_fleet.add("mini", trust=False)
    over_ssh("mini")
    (finding,) = place.look().findings
    assert "host key" in finding.text
    assert f"ssh-keyscan -p {node.port} 127.0.0.1 >> {ssh_fleet.known_hosts}" in finding.text


def test_a_changed_host_key_is_told_as_such(
    place: Place, ssh_fleet: SshFleet, over_ssh: Callable[[str], None]
) -> None:
    node = ssh_fleet.add("mini")
    node.stop()
    node.new_host_key()
    node.start()
    over_ssh("mini")
    (finding,) = place.look().findings
    assert "has changed" in finding.text
    assert "ssh-keygen -R" in finding.text


def test_a_refused_login_is_told_as_such(
    place: Place, ssh_fleet: SshFleet, over_ssh: Callable[[str], None]
) -> None:
    node = ssh_fleet.add("mini")
    (node.folder / "authorized_keys").write_text("")
    over_ssh("mini")
    (finding,) = place.look().findings
    assert "refused the login" in finding.text


def test_a_node_without_python_git_and_agent_is_told_each(
    place: Place, ssh_fleet: SshFleet, over_ssh: Callable[[str], None], tmp_path: Path
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for name in ("sh", "date", "df", "tail", "dirname"):
        found = next(p for p in (Path("/usr/bin") / name, Path("/bin") / name) if p.exists())
        (few / name).symlink_to(found)
    script(few / "df", DF.format(used=1, free=1)) if not (few / "df").exists() else None
    ssh_fleet.add("mini", path=str(few))
    over_ssh("mini")
    place.nodes({"name": "mini", "ssh_host": "mini", "executor": "codex"})
    for task_id in ("S01", "S02"):
        path = place.spec(task_id)
        path.write_text(path.read_text().replace("executor: shell", "executor: codex"))
    place.home.projects.write_text('{"shop": {"sync_mode": "git", "repo_url": "r"}}')
    texts = [finding.text for finding in place.look().findings]
    assert any("no python3" in text for text in texts)
    assert any("no git" in text for text in texts)
    assert any("no program codex" in text for text in texts)


def test_a_shell_that_prints_a_banner_is_understood(
    place: Place, ssh_fleet: SshFleet, over_ssh: Callable[[str], None]
) -> None:
    node = ssh_fleet.add("mini")
    (node.home / ".bashrc").write_text("echo welcome to dispatch\n")
    over_ssh("mini")
    assert place.look().findings == ()
