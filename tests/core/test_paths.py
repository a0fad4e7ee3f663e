import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_controller.core import paths
from dispatch_controller.core.paths import HeldPaths

parts = st.sampled_from(["a", "B", "c.py", ".", "..", "", "*", "é", "d[1]"])
some_paths = st.lists(parts, max_size=5).map("/".join) | st.text(max_size=20)


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("src/A.py", "src/a.py"),
        ("./src//a.py", "src/a.py"),
        ("src/", "src"),
        ("src/x/../a.py", "src/a.py"),
        ("src\\a.py", "src/a.py"),
        ("src/*.py", "src"),
        ("web/app/**/*.tsx", "web/app"),
        ("src/a?.py", "src"),
        ("src/{a,b}.py", "src"),
        ("*.py", ""),
        (".", ""),
        ("", ""),
        (unicodedata.normalize("NFD", "Übung/é.md"), unicodedata.normalize("NFC", "übung/é.md")),
        ("/etc/passwd", "/etc/passwd"),
        ("../x", "../x"),
    ],
)
def test_normal_form(path: str, form: str) -> None:
    assert paths.normalise(path) == form


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/etc/passwd", "absolute"),
        ("~/x", "absolute"),
        ("C:\\x", "absolute"),
        ("\\\\host\\share", "absolute"),
        ("..", "climbs"),
        ("a/../../b", "climbs"),
        ("a\\..\\..\\b", "climbs"),
        ("./../a/b", "climbs"),
        ("*/../../a", "climbs"),
        ("a\x00b", "control"),
        ("a/" * 1000, "2000 characters"),
    ],
)
def test_paths_outside_the_project_are_refused(path: str, part: str) -> None:
    assert part in (paths.problem(path) or "")


@pytest.mark.parametrize("path", ["a", "a/../b", "src/..foo/x", "...", "a b/ü.md", "**/*.py"])
def test_paths_inside_the_project_are_taken(path: str) -> None:
    assert paths.problem(path) is None


@given(st.text())
def test_the_normal_form_is_its_own_normal_form(path: str) -> None:
    form = paths.normalise(path)
    assert paths.normalise(form) == form


@pytest.mark.parametrize(
    ("held", "wanted", "answer"),
    [
        ("src/a.py", "SRC/A.py", "src/a.py"),
        ("src", "src/deep/a.py", "src"),
        ("src/deep/a.py", "src", "src/deep/a.py"),
        ("src/*.py", "src/b.txt", "src"),
        ("*.py", "docs/x.md", ""),
        ("docs/x.md", "*.py", "docs/x.md"),
        ("src/a", "src/ab", None),
        ("src/ab", "src/a", None),
        ("src", "tests", None),
    ],
)
def test_what_conflicts(held: str, wanted: str, answer: str | None) -> None:
    index = HeldPaths()
    index.add("T1", [held])
    assert index.conflict([wanted]) == (None if answer is None else (answer, "T1"))


def test_the_first_holder_is_named() -> None:
    index = HeldPaths()
    index.add("T1", ["a.py", "b.py"])
    index.add("T2", ["a.py", "c/d.py"])
    assert index.conflict(["x", "a.py"]) == ("a.py", "T1")
    assert index.conflict(["c"]) == ("c/d.py", "T2")
    assert index.conflict([]) is None


def _plainly(a: str, b: str) -> bool:
    a, b = paths.normalise(a), paths.normalise(b)
    return "" in (a, b) or a == b or a.startswith(b + "/") or b.startswith(a + "/")


@given(st.lists(some_paths, max_size=6), st.lists(some_paths, max_size=6))
def test_the_index_finds_what_comparing_each_with_each_finds(a: list[str], b: list[str]) -> None:
    expected = any(_plainly(x, y) for x in a for y in b)
    assert (paths.conflict(a, b) is not None) == expected
    assert (paths.conflict(b, a) is not None) == expected
