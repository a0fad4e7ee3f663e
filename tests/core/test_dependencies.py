from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_controller.core.dependencies import (
    Ambiguous,
    Names,
    Resolution,
    Resolved,
    UnknownId,
    cycles,
)

TASKS = [
    ("S10-login", "shell"),
    ("S05-a", "shell"),
    ("S05-b", "shell"),
    ("S100-x", "shell"),
    ("S1", "web"),
    ("S1@shell", "shell"),
    ("S07", "web"),
    ("S05", "web"),
    ("S2", "web"),
]


@pytest.mark.parametrize(
    ("dependency", "resolution"),
    [
        ("S10-login", Resolved("S10-login")),
        ("S10", Resolved("S10-login")),
        ("S1", Resolved("S1@shell")),
        ("S1@shell", Resolved("S1@shell")),
        ("S05", Ambiguous(("S05-a", "S05-b"))),
        ("S07", Resolved("S07")),
        ("S2", Resolved("S2")),
        ("s10", UnknownId()),
        ("S10-", UnknownId()),
        ("", UnknownId()),
    ],
)
def test_what_a_dependency_of_the_project_shell_names(
    dependency: str, resolution: Resolution
) -> None:
    assert Names(TASKS).resolve(dependency, "shell") == resolution


def test_a_project_without_tasks_finds_exact_ids_only() -> None:
    names = Names(TASKS)
    assert names.resolve("S10-login", "new") == Resolved("S10-login")
    assert names.resolve("S10", "new") == UnknownId()


def test_unresolved_ids_stay_as_written_and_each_is_kept_once() -> None:
    assert Names(TASKS).link(["S10", "S05", "gone", "S10-login"], "shell") == (
        "S10-login",
        "S05",
        "gone",
    )


@given(st.lists(st.sampled_from([*dict(TASKS), "S10", "S05", "gone"])))
def test_linking_again_changes_nothing(depends_on: list[str]) -> None:
    names = Names(TASKS)
    once = names.link(depends_on, "shell")
    assert names.link(once, "shell") == once


def test_each_cycle_is_told_with_its_path() -> None:
    graph = {
        "a": ["b"],
        "b": ["c", "gone"],
        "c": ["a"],
        "self": ["self"],
        "waits": ["a", "free"],
        "free": [],
    }
    found = cycles(graph)
    assert set(found) == {"a", "b", "c", "self"}
    assert found["a"] == found["b"] == found["c"] == ("a", "b", "c", "a")
    assert found["self"] == ("self", "self")


def test_what_lies_between_two_cycles_is_in_none() -> None:
    assert set(cycles({"a": ["a", "m"], "m": ["z"], "z": ["z"]})) == {"a", "z"}


def test_a_cycle_of_many_thousand_tasks_is_found() -> None:
    graph = {str(n): [str((n + 1) % 20_000)] for n in range(20_000)}
    assert len(cycles(graph)) == 20_000


@given(st.dictionaries(st.integers(0, 8).map(str), st.lists(st.integers(0, 9).map(str))))
def test_paths_are_real_and_without_them_nothing_waits_in_a_circle(
    graph: dict[str, list[str]],
) -> None:
    found = cycles(graph)
    for task, path in found.items():
        assert task in path
        assert path[0] == path[-1]
        assert all(there in graph[here] for here, there in pairwise(path))
    rest = {t: [d for d in deps if d not in found] for t, deps in graph.items() if t not in found}
    try:
        TopologicalSorter(rest).prepare()
    except CycleError:
        pytest.fail("a cycle was overlooked")
