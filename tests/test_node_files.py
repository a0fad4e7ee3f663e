"""nodes.json and projects.json: one bad entry never takes the others with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dispatch_controller.node_files import (
    DEFAULT_GATES,
    NodeEntry,
    ProjectEntry,
    read_nodes,
    read_projects,
)


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "file.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_node_needs_only_a_name(tmp_path: Path) -> None:
    for content in ([{"name": "mini"}], {"nodes": [{"name": "mini"}]}):
        read = read_nodes(write(tmp_path, content))
        assert read.complete
        assert not read.errors
        assert read.nodes == (
            NodeEntry(
                name="mini",
                ssh_host=None,
                slots=8,
                api_mode="direct",
                executor="glm",
                priority=2,
                work_dir="~/dispatch",
                worker_url=None,
            ),
        )
        assert read.nodes[0].model_fields_set == {"name"}


def test_keys_to_ignore_and_unknown_ones_are_kept(tmp_path: Path) -> None:
    entry = {"name": "a", "daemon": True, "socket_path": "/s", "later": {"x": 1}, "slots": 0}
    read = read_nodes(write(tmp_path, [entry]))
    assert not read.errors
    assert read.nodes[0].slots == 0
    assert read.nodes[0].model_extra == {"daemon": True, "socket_path": "/s", "later": {"x": 1}}


def test_a_wrong_entry_is_named_with_file_entry_and_key_and_the_others_load(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        [
            {"name": "good"},
            {"name": "bad", "slots": "four", "priority": None},
            {"slots": 3},
            "text",
            {"name": "minus", "slots": -1},
            {"name": "has blank"},
            {"name": "yes", "slots": True},
            {"name": "good"},
            {"name": "last"},
        ],
    )
    read = read_nodes(path)
    assert [node.name for node in read.nodes] == ["good", "last"]
    assert [(error.entry, error.key) for error in read.errors] == [
        ("bad", "slots"),
        ("bad", "priority"),
        ("#3", "name"),
        ("#4", None),
        ("minus", "slots"),
        ("has blank", "name"),
        ("yes", "slots"),
        ("#8", "name"),
    ]
    assert str(read.errors[0]) == (
        f'{path}: bad: slots: Input should be a valid integer, not "four"'
    )
    assert str(read.errors[5]).endswith(
        "name: must have no space, '/', ':' or control character, not \"has blank\""
    )
    assert "good is there already" in str(read.errors[-1])


@pytest.mark.parametrize("content", ["{", "null", '"x"', "3", '{"nodes": {}}', "{}", "[" * 100000])
def test_a_file_that_cannot_be_used_says_nothing_of_any_node(tmp_path: Path, content: str) -> None:
    read = read_nodes(write(tmp_path, content))
    assert not read.complete
    assert not read.nodes
    assert len(read.errors) == 1
    assert read.errors[0].entry is None


def test_a_missing_file_is_no_error(tmp_path: Path) -> None:
    nodes, projects = read_nodes(tmp_path / "none"), read_projects(tmp_path / "none")
    assert not nodes.errors
    assert not nodes.complete
    assert not projects.errors
    assert not projects.complete


def test_every_key_of_a_project_is_optional(tmp_path: Path) -> None:
    read = read_projects(write(tmp_path, {"shop": {}}))
    assert read.projects == {"shop": ProjectEntry()}
    assert read.projects["shop"].gates == list(DEFAULT_GATES)
    assert read.projects["shop"].sync_mode is None


def test_projects_load_beside_wrong_ones(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {
            "shop": {"sync_mode": "git", "repo_url": "u", "gates": ["exit"], "mine": 1},
            "bad": {"sync_mode": "rsync", "paused": "yes", "gates": ["exit", "vibes"]},
            "list": [],
        },
    )
    read = read_projects(path)
    assert set(read.projects) == {"shop"}
    assert read.projects["shop"].model_extra == {"mine": 1}
    assert [(error.entry, error.key) for error in read.errors] == [
        ("bad", "sync_mode"),
        ("bad", "gates.1"),
        ("bad", "paused"),
        ("list", None),
    ]
    assert not read_projects(write(tmp_path, [])).complete


@pytest.mark.parametrize("url", ["poll", "http://10.0.0.7:8081", "https://mini/", "http://[::1]:1"])
def test_a_worker_is_named_by_its_address_or_polls(tmp_path: Path, url: str) -> None:
    read = read_nodes(write(tmp_path, [{"name": "a", "worker_url": url}]))
    assert not read.errors
    assert read.nodes[0].worker_url == url


@pytest.mark.parametrize(
    "url", ["10.0.0.7:8081", "ftp://mini", "file:///etc/passwd", "http://", "http://u:p@mini", ""]
)
def test_an_address_that_no_worker_can_have_is_an_error_of_its_key(
    tmp_path: Path, url: str
) -> None:
    (error,) = read_nodes(write(tmp_path, [{"name": "a", "worker_url": url}])).errors
    assert (error.entry, error.key) == ("a", "worker_url")
