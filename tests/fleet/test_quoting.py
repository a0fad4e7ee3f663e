from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatch_controller.fleet.quoting import shell_line


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_shell_gets_back_exactly_the_arguments(arguments: list[str]) -> None:
    words = [word for word in arguments if not word.startswith("~/")]
    line = shell_line(["printf", "%s\\0", "", *words])
    said = subprocess.run(["sh", "-c", line], capture_output=True, check=True).stdout
    assert said == b"".join(word.encode() + b"\0" for word in ["", *words])


@pytest.mark.parametrize(
    ("argument", "word"),
    [
        ("~/dispatch", "~/dispatch"),
        ("~/a b;id", "~/'a b;id'"),
        ("~/", "~/"),
        ("~", "'~'"),
        ("~root/x", "'~root/x'"),
        ("x~/y", "'x~/y'"),
    ],
)
def test_only_a_leading_tilde_slash_is_left_to_the_shell(argument: str, word: str) -> None:
    assert shell_line(["cat", argument]) == f"cat {word}"


@pytest.mark.parametrize("argv", [[], ["a\0b"], ["~/a\0b"]])
def test_what_no_shell_can_carry_is_refused(argv: list[str]) -> None:
    with pytest.raises(ValueError, match=r"NUL|no program"):
        shell_line(argv)
