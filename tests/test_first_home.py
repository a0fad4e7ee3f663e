"""A home from nothing: hosts of the SSH config, nodes, projects, and files that are never lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dispatch_controller.first_home import (
    Wanted,
    make_home,
    node,
    projects_of,
    ssh_hosts,
    usual_executor,
)
from dispatch_controller.home import Home
from dispatch_controller.node_files import read_nodes, read_projects
from dispatch_controller.settings import load_settings
from dispatch_controller.spec_files import find


def spec(folder: Path, task_id: str, project: str | None = None, executor: str = "shell") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    line = f"project: {project}\n" if project else ""
    (folder / f"{task_id}.md").write_text(
        f"---\ntask_id: {task_id}\n{line}modifies: [a.py]\nexecutor: {executor}\n---\n"
    )


def test_the_hosts_of_the_ssh_config_are_found_where_it_includes_others(tmp_path: Path) -> None:
    (tmp_path / "more.d").mkdir()
    (tmp_path / "more.d" / "a.conf").write_text("Host gamma\n  Port 22\n")
    (tmp_path / "config").write_text(
        "# machines\nHost alpha beta  # two\n  HostName 10.0.0.1\nhost=delta\n"
        "Include more.d/*.conf\nHost *.lan !x web?\nHost *\nHost github.com\nHost alpha\n"
        'Host "un closed\nMatch host mini\n'
    )
    hosts = ssh_hosts(tmp_path / "config")
    assert hosts == ["alpha", "beta", "delta", "gamma", '"un', "closed"]
    assert ssh_hosts(tmp_path / "none") == []


def test_an_include_that_includes_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host one\nInclude config\n")
    assert ssh_hosts(tmp_path / "config") == ["one"]


@pytest.mark.parametrize(
    ("given", "name", "host"),
    [
        ("here", "here", None),
        ("mini", "mini", "mini"),
        ("lab=user@10.0.0.7:2222", "lab", "user@10.0.0.7:2222"),
        ("me@10.0.0.7:2222", "10.0.0.7-2222", "me@10.0.0.7:2222"),
    ],
)
def test_a_node_is_written_as_people_say_it(given: str, name: str, host: str | None) -> None:
    entry = node(given, 3, "shell")
    assert (entry.name, entry.ssh_host, entry.slots) == (name, host, 3)


def test_a_name_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(ValueError, match="name"):
        node("a b=mini", 1, "shell")


def test_a_folder_of_one_project_becomes_its_specs_dir(tmp_path: Path) -> None:
    spec(tmp_path / "specs", "S01")
    (tmp_path / "code").mkdir()
    specs, projects = projects_of(tmp_path / "specs", "shop", str(tmp_path / "code"))
    assert specs is None
    assert projects == {
        "shop": {
            "specs_dir": str(tmp_path / "specs"),
            "sync_mode": "scp",
            "repo_local": str(tmp_path / "code"),
        }
    }


def test_a_folder_of_several_projects_stays_one_folder(tmp_path: Path) -> None:
    spec(tmp_path / "one", "S01")
    spec(tmp_path / "two", "P01")
    assert projects_of(tmp_path, None, None) == (tmp_path, {})
    specs, projects = projects_of(tmp_path, None, "git@example.net:me/all.git")
    assert specs == tmp_path
    assert set(projects) == {"one", "two"}
    assert projects["one"] == {"sync_mode": "git", "repo_url": "git@example.net:me/all.git"}


def test_the_executor_is_what_most_specs_want(tmp_path: Path) -> None:
    assert usual_executor(None) == "glm"
    spec(tmp_path, "S01", executor="codex")
    spec(tmp_path, "S02", executor="codex")
    spec(tmp_path, "S03", executor="glm")
    assert usual_executor(find([tmp_path])) == "codex"


def test_the_files_written_are_read_back_without_an_error(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    folder = tmp_path / 'all "specs"'
    folder.mkdir()
    wanted = Wanted(
        [node("here", 2, "shell"), node("mini", 8, "glm")], folder, {"shop": {"sync_mode": "scp"}}
    )
    assert all(written for _, written in make_home(home, wanted))
    read = read_nodes(home.nodes)
    assert [(entry.name, entry.slots) for entry in read.nodes] == [("here", 2), ("mini", 8)]
    assert not read.errors
    assert not read_projects(home.projects).errors
    assert load_settings(home.root, environ={}).specs == folder


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    home.nodes.write_text('[{"name": "old"}]')
    wanted = Wanted([node("here", 2, "shell")], None, {"shop": {}})
    assert dict(make_home(home, wanted)) == {home.nodes: False, home.projects: True}
    assert json.loads(home.nodes.read_text()) == [{"name": "old"}]
