"""Pure parts of the factory: answers taken apart, comments found, allowances."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatch_controller.core import comments, gaps
from dispatch_controller.core.allowance import allowance, failure_rate
from dispatch_controller.core.candidates import (
    Accepted,
    Candidate,
    Measure,
    check,
    compose,
    digest_of,
    slug,
    split,
)
from dispatch_controller.core.spec import Spec, parse
from dispatch_controller.model import TaskStatus

settings.register_profile("factory", derandomize=True, deadline=None)
settings.load_profile("factory")

MEASURE = Measure("shop", frozenset(), frozenset({"S1"}), lambda path: path == "a.py")
ONE = (
    "---\ntitle: One\nmodifies: [a.py]\nevidence: ['a.py:1']\nverify: 'true'\n---\n\n"
    "Do the one thing that is asked for.\n"
)
TWO = ONE.replace("One", "Two").replace("a.py:1'", "a.py:2'")


def test_specs_one_after_the_other_are_told_apart_by_their_front_matter() -> None:
    answer = f"Here:\n\n{ONE}\n---\n\nA rule is no beginning.\n\n{TWO}"
    first, second = split(answer)
    assert first.text.endswith("A rule is no beginning.\n")
    assert second.text == TWO
    assert [piece.complete for piece in split(answer, whole=False)] == [True, False]


def test_specs_in_code_fences_lose_the_fence() -> None:
    pieces = split(f"First:\n\n```markdown\n{ONE}```\n\nSecond:\n\n```\n{TWO}\n```\nBye.")
    assert [piece.text.rstrip("\n") for piece in pieces] == [ONE.rstrip(), TWO.rstrip()]


def test_tags_win_and_an_open_one_is_incomplete() -> None:
    pieces = split(f"<spec>\n{ONE}</spec>\n{TWO}\n<spec>\n{TWO}<spec>\n{ONE}</spec>")
    assert [(piece.text, piece.complete) for piece in pieces] == [
        (ONE, True), (TWO, False), (ONE, True),
    ]  # fmt: skip


def test_what_is_composed_is_a_spec_again_with_only_known_fields() -> None:
    text = ONE.replace("title: One", "title: 'One: \"two\" # \\ three'\nevil: yes\ntask_id: mine")
    accepted = check(Candidate(text), MEASURE)
    assert isinstance(accepted, Accepted)
    made = compose(accepted, "G1-01-one", generated_by="openai", generation=1, executor="shell")
    parsed = parse("G1-01-one.md", made.encode(), default_project="x")
    assert isinstance(parsed, Spec)
    assert (parsed.task_id, parsed.project, parsed.executor) == ("G1-01-one", "shop", "shell")
    assert parsed.title == 'One: "two" # \\ three'
    assert (parsed.generated_by, parsed.generation) == ("openai", 1)
    assert parsed.evidence_key == digest_of(["a.py:1"])
    assert "evil" not in made
    assert not parsed.warnings


@given(st.text(max_size=300), st.booleans())
def test_any_answer_is_taken_apart_and_judged(text: str, whole: bool) -> None:
    for piece in split(f"{ONE}{text}", whole=whole):
        check(piece, MEASURE)


@given(st.text(min_size=1, max_size=100), st.text(max_size=200))
def test_any_title_and_body_make_a_spec_that_reads_back(title: str, body: str) -> None:
    head = ONE.partition("---\n\n")[0].replace("title: One\n", "")
    accepted = check(Candidate(f"{head}---\n\n# {title}\n\nDo the one thing. {body}"), MEASURE)
    if isinstance(accepted, Accepted):
        name = f"G1-01-{slug(accepted.spec.title or '')}"
        made = compose(accepted, name, generated_by="gaps", generation=1, executor=None)
        parsed = parse(f"{name}.md", made.encode("utf-8", "replace"), default_project="x")
        assert isinstance(parsed, Spec), made
        assert parsed.task_id == name


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("a.py", "x = '# TODO: no'\n# TODO: yes\n", ["yes"]),
        ("a.py", "'''\n# TODO: no\n'''\nx = 1  # FIXME yes\n", ["yes"]),
        ("a.py", "# TODO: yes\nx = (\n", ["yes"]),
        ("a.c", 'char *s = "// TODO: no \\" // TODO: no";\n/* x\n * TODO: yes */\n', ["yes"]),
        ("a.ts", "const s = `// TODO: ${no}\n// TODO: no`; // TODO: yes\n", ["yes"]),
        ("a.rs", "fn f<'a>(x: &'a str) {} // TODO: yes\n", ["yes"]),
        ("a.go", "// the TODO list\n// TODO(ann): yes\n// see TODOS\n", ["yes"]),
        ("a.sh", 'echo "# TODO: no" $# TODO\n# it\'s so\n# TODO: yes\n', ["yes"]),
        ("a.sql", "select '-- TODO: no';\n-- TODO: yes\n", ["yes"]),
        ("a.html", "<p>TODO: no</p><!-- TODO: yes -->", ["yes"]),
        ("a.md", "TODO: no\n\n- [ ] TODO: no\n<!--\nTODO: yes\n-->\n", ["yes"]),
        ("a.css", "a::after { content: '/* TODO: no */' } /* FIXME: yes */", ["yes"]),
        ("Makefile", "all:\n\techo TODO\n# TODO: yes\n", ["yes"]),
        ("a.txt", "# TODO: no\n", []),
        ("a.py", "# TODO: one\n# TODO: one\n# done. FIXME: two\n", ["one", "two"]),
    ],
)
def test_markers_count_in_comments_only(path: str, text: str, found: list[str]) -> None:
    assert [gap.title for gap in gaps.marker_gaps(path, text)] == found


@given(st.text(alphabet="'\"`/*#-\\\n <!>TODO:x", max_size=200), st.sampled_from(["a.py", "a.js"]))
def test_comments_of_anything_are_found_on_their_lines(text: str, path: str) -> None:
    lines = text.split("\n")
    for comment in comments.comments(path, text):
        assert 1 <= comment.line <= len(lines) + 1
        assert comment.text in lines[comment.line - 1] if comment.text else True


def test_long_hostile_text_is_read_in_time() -> None:
    size = 300_000
    began = time.perf_counter()
    list(gaps.marker_gaps("a.js", 'x = "' + '\\"' * size + "\n// TODO: yes\n"))
    list(gaps.marker_gaps("a.js", "'" * size))
    list(gaps.check_gaps(gaps.CheckRun("make", 1, "a." * size), ["a.py"]))
    list(gaps.check_gaps(gaps.CheckRun("make", 1, "FAILED " * size), ["a.py"]))
    check(Candidate(ONE.replace("verify: 'true'\n", "") + "#" + " acceptance" * 50_000), MEASURE)
    split("---\ntitle:\n" * 50_000)
    split("<spec>\n" * 50_000)
    assert time.perf_counter() - began < 20


def test_an_allowance_starts_at_the_limit_and_follows_what_landed() -> None:
    done, dead, waits = TaskStatus.COMPLETED, TaskStatus.DEADLETTER, TaskStatus.PENDING
    for states, expected in (
        ([], 20),
        ([waits] * 20, 20),
        ([done] * 20, 20),
        ([dead], 10),
        ([dead] * 20, 0),
        ([done] * 10 + [dead] * 10, 10),
        ([dead] * 20 + [done] * 20, 20),
        ([done, dead, waits], 13),
    ):
        assert allowance(20, states) == expected


def test_the_failure_rate_is_that_of_what_ended() -> None:
    done, dead, failed = TaskStatus.COMPLETED, TaskStatus.DEADLETTER, TaskStatus.FAILED
    assert failure_rate([]) == 0.0
    assert failure_rate([done, dead, failed, TaskStatus.RUNNING]) == 2 / 3
    assert failure_rate([done] * 20 + [dead] * 20) == 0.0
