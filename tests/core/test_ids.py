import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_controller.core import ids

ALLOWED = "abcXYZ019._-"
any_ids = st.from_regex(ids.ID, fullmatch=True) | st.text(max_size=300) | st.text(ALLOWED)


@pytest.mark.parametrize(
    "task_id", ["S10-login", "IDLE-02162127-03", "a", "0", "S1.2_x", "007", "x" * 128]
)
def test_ordinary_ids_are_accepted(task_id: str) -> None:
    assert ids.problem(task_id) is None


@pytest.mark.parametrize(
    ("task_id", "part"),
    [
        ("", "empty"),
        ("../../x", "SOLIDUS"),
        (".hidden", "starts with"),
        ("-rf", "starts with"),
        ("S1; rm -rf /", "SEMICOLON"),
        ("S1\n", "U+000A"),
        ("a/b", "SOLIDUS"),
        ("x" * 10_000, "10000 characters"),
        ("S1-lоgin", "CYRILLIC SMALL LETTER O U+043E (it may look like an ASCII letter)"),
        ("S1١", "ARABIC-INDIC DIGIT ONE"),
        ("S1\ud800", "U+D800"),
    ],
)
def test_a_refused_id_says_which_character_is_wrong(task_id: str, part: str) -> None:
    assert part in (ids.problem(task_id) or "")


def test_ordinary_ids_are_their_own_folder() -> None:
    for task_id in ("S10-login", "IDLE-02162127-03", "x" * 100, "a-1b2c3d4e5f60"):
        assert ids.folder_name(task_id) == task_id


@pytest.mark.parametrize(
    "task_id",
    ["S10@shell", "x" * 101, "a..b", "a.lock", "a.LOCK", "a.", "../../x", "", "@{", "; rm -rf"],
)
def test_other_ids_get_a_folder_with_a_hash(task_id: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*--[0-9a-f]{12}", ids.folder_name(task_id))


@given(any_ids)
def test_a_folder_is_short_and_fit_for_a_git_ref(task_id: str) -> None:
    folder = ids.folder_name(task_id)
    assert len(folder) <= ids.FOLDER_LIMIT
    assert ids.ID.fullmatch(folder)
    assert ".." not in folder
    assert not folder.lower().endswith((".", ".lock"))


@given(any_ids, any_ids)
def test_two_ids_share_a_folder_only_if_they_differ_by_case_alone(a: str, b: str) -> None:
    if a.casefold() != b.casefold():
        assert ids.folder_name(a).casefold() != ids.folder_name(b).casefold()


@given(any_ids)
def test_an_id_cannot_take_the_folder_of_a_hashed_one(task_id: str) -> None:
    folder = ids.folder_name(task_id)
    if folder != task_id:
        assert ids.folder_name(folder) != folder
        assert ids.folder_name(folder.upper()).casefold() != folder.casefold()


def test_the_written_id_is_what_was_qualified() -> None:
    assert ids.written(ids.qualified("S1", "p"), "p") == "S1"
    assert ids.written("S1", "p") == "S1"
    assert ids.written("S1@q", "p") == "S1@q"


def test_an_id_may_be_registered_with_its_project() -> None:
    assert ids.registered_problem("S1") is None
    assert ids.registered_problem("S1@shop") is None
    assert ids.registered_problem("S1@") == "it is empty"
    assert ids.registered_problem("S1@a@b") is not None
    assert ids.registered_problem("") == "it is empty"
