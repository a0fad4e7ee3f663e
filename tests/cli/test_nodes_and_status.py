"""Commands about nodes, and status."""

from __future__ import annotations

import json

import pytest

from dispatch_controller.cli.nodes import reached_by, state_cell
from tests.cli.conftest import Run
from tests.cli.controller import NODE, STATUS, FakeController


def test_nodes_are_listed_with_or_without_saying_list(controller: FakeController, run: Run) -> None:
    for arguments in (["--json"], ["list", "--json"], ["--json", "list"]):
        assert json.loads(run("nodes", *arguments).out) == [NODE]
    lines = run("nodes").out.splitlines()
    assert lines[1].split()[:5] == ["mini", "ready", "2", "4", "shell"]


def test_a_node_is_switched_off_and_on(controller: FakeController, run: Run) -> None:
    assert run("nodes", "disable", "mini").out == "mini: disabled\n"
    assert controller.requests[-1][:2] == ("POST", "/api/v1/nodes/mini/disable")
    assert json.loads(run("nodes", "enable", "mini", "--json").out)["enabled"] == 1
    result = run("nodes", "enable", "maxi")
    assert result.code == 1
    assert result.err


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, "ready"),
        ({"free": 0}, "full"),
        ({"reachable": False, "free": 0}, "unreachable"),
        ({"quarantined": True, "reachable": False}, "quarantined"),
        ({"enabled": 0, "quarantined": True}, "disabled"),
    ],
)
def test_the_state_of_a_node_is_one_word(change: dict[str, object], word: str) -> None:
    assert state_cell({**NODE, **change}).plain == word


@pytest.mark.parametrize(
    ("change", "by"),
    [
        ({"way": "local"}, "this machine"),
        ({"way": "ssh", "ssh_host": "box"}, "box"),
        ({"way": "worker", "pulls": True}, "polling worker"),
        ({"way": "worker", "worker_url": "http://10.0.0.7:8081"}, "http://10.0.0.7:8081"),
        # Heard of, and not in use yet: the node still holds tasks that it reached otherwise.
        ({"way": "ssh", "ssh_host": "box", "worker_url": "http://10.0.0.7:8081"}, "box"),
    ],
)
def test_it_is_said_what_a_node_is_reached_by(change: dict[str, object], by: str) -> None:
    assert reached_by({**NODE, **change}) == by


def test_status_gives_programs_the_body_as_it_is(controller: FakeController, run: Run) -> None:
    assert json.loads(run("status", "--json").out) == STATUS
    out = run("status").out
    assert "dispatch-controller 0.1.0 up 1h 1m" in out
    assert "reaper" in out
    assert "nodes: 1" in out


@pytest.mark.parametrize("name", ["", "../x", "a/b", "x\udcff"])
def test_what_no_node_is_called_is_said_so(controller: FakeController, run: Run, name: str) -> None:
    result = run("nodes", "enable", name)
    assert result.code == 1
    assert "there is no node" in result.err
    assert not controller.requests
