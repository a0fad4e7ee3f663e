import hashlib

import pytest

from dispatch_controller.core.spec import Document, Parsed, Spec, SpecError, parse

WHOLE = """---
task_id: S10-login
project: shell
priority: High
estimated_minutes: 45
depends_on: [S01-base, S02]
modifies:
  - src/login.py
  - src/*.css
exclusive: yes
executor: codex
max_retries: 4
timeout_minutes: 90
verify: |
  make test
unheard_of: {a: [1, 2]}
---

# Log people in

Do it.
"""


def read(text: str | bytes, path: str = "/specs/shell/S10-login.md", **options: object) -> Parsed:
    content = text if isinstance(text, bytes) else text.encode()
    project = options.get("project")
    optional = options.get("modifies_optional", frozenset())
    assert project is None or isinstance(project, str)
    assert isinstance(optional, frozenset)
    return parse(
        path,
        content,
        project=project,
        default_project=str(options.get("default_project", "folder")),
        modifies_optional=optional,
    )


def spec_of(text: str | bytes, path: str = "/specs/shell/S10-login.md", **options: object) -> Spec:
    parsed = read(text, path, **options)
    assert isinstance(parsed, Spec), parsed
    return parsed


def with_line(line: str) -> str:
    """A spec whose last key, in line 4, is `line`."""
    return f"---\ntask_id: S1\nmodifies: [a.py]\n{line}\n---\n"


def test_every_field_is_read() -> None:
    assert spec_of(WHOLE) == Spec(
        task_id="S10-login",
        project="shell",
        path="/specs/shell/S10-login.md",
        spec_hash=hashlib.sha256(WHOLE.encode()).hexdigest(),
        priority=1,
        estimated_minutes=45,
        depends_on=("S01-base", "S02"),
        modifies=("src/login.py", "src/*.css"),
        exclusive=True,
        executor="codex",
        max_retries=4,
        timeout_minutes=90,
        verify="make test",
        title="Log people in",
        body="# Log people in\n\nDo it.\n",
    )


def test_absent_fields_have_their_defaults() -> None:
    spec = spec_of("---\nmodifies: a.py\n---\n")
    assert (spec.task_id, spec.project) == ("S10-login", "folder")
    assert (spec.priority, spec.estimated_minutes, spec.max_retries) == (2, 30, 2)
    assert (spec.depends_on, spec.exclusive, spec.executor) == ((), False, "glm")
    assert (spec.timeout_minutes, spec.verify, spec.warnings) == (120, None, ())


def test_empty_values_count_as_absent() -> None:
    spec = spec_of("---\ntask_id:\nproject: ~\npriority: null\ndepends_on:\nmodifies: a\n---\n")
    assert (spec.task_id, spec.project, spec.priority) == ("S10-login", "folder", 2)
    assert (spec.depends_on, spec.warnings) == ((), ())


def test_the_time_limit_follows_a_long_estimate() -> None:
    assert spec_of(with_line("estimated_minutes: 60")).timeout_minutes == 240
    assert spec_of(with_line("estimated_minutes: 20")).timeout_minutes == 120


def test_the_callers_project_wins_then_the_front_matters_then_the_folders() -> None:
    assert spec_of(WHOLE, project="mine").project == "mine"
    assert spec_of(WHOLE).project == "shell"
    assert spec_of(with_line("title: x")).project == "folder"


@pytest.mark.parametrize(
    ("written", "priority"),
    [
        ("0", 0),
        ("10", 10),
        ("'1'", 1),
        ("High", 1),
        ("MEDIUM", 2),
        ("low", 3),
        ("P1", 1),
        ("p0", 0),
        ("P3", 3),
    ],
)
def test_priorities_in_numbers_and_words(written: str, priority: int) -> None:
    spec = spec_of(with_line(f"priority: {written}"))
    assert (spec.priority, spec.warnings) == (priority, ())


@pytest.mark.parametrize(
    ("line", "field", "default"),
    [
        ("priority: urgent", "priority", 2),
        ("priority: -1", "priority", 2),
        ("priority: 1.5", "priority", 2),
        ("priority: true", "priority", 2),
        ("priority: [1]", "priority", 2),
        ("estimated_minutes: -5", "estimated_minutes", 30),
        ("estimated_minutes: 0", "estimated_minutes", 30),
        ("estimated_minutes: true", "estimated_minutes", 30),
        ("estimated_minutes: 1e3", "estimated_minutes", 30),
        ("estimated_minutes: 99999999999999999999", "estimated_minutes", 30),
        ("estimated_minutes: about an hour", "estimated_minutes", 30),
        ("depends_on: {S1: x}", "depends_on", ()),
        ("exclusive: 1", "exclusive", False),
        ("exclusive: maybe", "exclusive", False),
        ("executor: claude; rm -rf /", "executor", "glm"),
        ("max_retries: -1", "max_retries", 2),
        ("max_retries: 1000000", "max_retries", 2),
        ("timeout_minutes: soon", "timeout_minutes", 120),
        ("verify: [make, test]", "verify", None),
    ],
)
def test_an_odd_value_becomes_the_default_with_a_warning(
    line: str, field: str, default: object
) -> None:
    spec = spec_of(with_line(line))
    assert getattr(spec, field) == default
    (warning,) = spec.warnings
    assert warning.startswith(f"line 4: {field}: ")


@pytest.mark.parametrize(
    ("written", "depends_on"),
    [
        ("S01", ("S01",)),
        ("S01, S02", ("S01", "S02")),
        ("none", ()),
        ("N/A", ()),
        ("''", ()),
        ("[S01, S01, '']", ("S01",)),
        ("[007, 2026-02-17, 1_0, yes]", ("007", "2026-02-17", "1_0", "yes")),
        ("[null, S01]", ("S01",)),
        ("['no id!']", ("no id!",)),
    ],
)
def test_dependencies_stay_as_written(written: str, depends_on: tuple[str, ...]) -> None:
    assert spec_of(with_line(f"depends_on: {written}")).depends_on == depends_on


@pytest.mark.parametrize(
    ("written", "modifies"),
    [
        ("src/a.py", ("src/a.py",)),
        ("[src/a.py, ' src/b.py ', src/a.py]", ("src/a.py", "src/b.py")),
        ("a.py, b.py", ("a.py", "b.py")),
        ("a.py,b.py,", ("a.py", "b.py")),
        ("|\n  src/a.py\n  - my docs/b.md\n", ("src/a.py", "my docs/b.md")),
        ("Make it fast, safe and small.", ("Make it fast, safe and small.",)),
        ("[7, true]", ("7", "true")),
    ],
)
def test_modifies_as_a_list_or_one_string(written: str, modifies: tuple[str, ...]) -> None:
    assert spec_of(f"---\nmodifies: {written}\n---\n").modifies == modifies


@pytest.mark.parametrize("written", ["", "[]", "''", "[null]", "['', ' ']", "' , '", "~"])
def test_an_empty_modifies_is_an_error_unless_the_project_allows_it(written: str) -> None:
    text = f"---\ntask_id: S1\nmodifies: {written}\n---\n"
    error = read(text)
    assert isinstance(error, SpecError)
    assert (error.line, error.reason.startswith("modifies is empty")) == (3, True)
    assert spec_of(text, modifies_optional=frozenset({"folder"})).modifies == ()
    assert isinstance(read(text, modifies_optional=frozenset({"other"})), SpecError)


def test_a_missing_modifies_is_an_error() -> None:
    error = read("---\ntask_id: S1\n---\n")
    assert isinstance(error, SpecError)
    assert error.reason.startswith("modifies is missing")


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("---\ntask_id: ../../x\nmodifies: a\n---\n", 2, "SOLIDUS"),
        ("---\ntask_id: [a]\nmodifies: a\n---\n", 2, "a list, not one value"),
        ("---\ntask_id: ''\nmodifies: a\n---\n", 2, "empty"),
        ("---\nmodifies: a\ntask_id: S1-lоgin\n---\n", 3, "CYRILLIC"),
        (f"---\ntask_id: {'x' * 10_000}\nmodifies: a\n---\n", 2, "10000 characters"),
        ("---\ntask_id: a\nproject: ; rm -rf\nmodifies: a\n---\n", 3, "SEMICOLON"),
        ("---\ntask_id: a\nmodifies:\n  - b\n  - /etc/passwd\n---\n", 5, "absolute"),
        ("---\ntask_id: a\nmodifies: ../x\n---\n", 3, "climbs"),
        ("---\ntask_id: a\nmodifies: {b: c}\n---\n", 3, "mapping"),
        ("---\ntask_id: a\nmodifies: [[b]]\n---\n", 3, "a list, not one value"),
        ("---\ntask_id: a\ntask_id: b\nmodifies: a\n---\n", 3, "first in line 2"),
        ("---\ntask_id: a\n\tmodifies: a\n---\n", 3, "spaces, not tabs"),
        ("---\ntask_id: a\nverify: make: test\n---\n", 3, "quote values that hold :"),
        ("---\ntask_id: a\nmodifies: [a\n---\n", 4, "not valid YAML"),
        ("---\ntask_id: a\nmodifies: &x a\n---\n", 3, "anchors"),
        ("---\ntask_id: a\nmodifies: *x\n---\n", 3, "alias"),
        ("---\ntask_id: !!python/object:os.system a\n---\n", 2, "tags"),
        ("---\ntask_id: a\nx: \x01\n---\n", 3, "U+0001"),
        ("---\ntask_id: a\n--- b\n---\n", 3, "second YAML document"),
        ("---\ntask_id: a\nx: " + "[" * 100 + "\n---\n", 3, "deeper"),
        ("---\ntask_id: a\nx: " + "y" * 70_000 + "\n---\n", 2, "more than 65536"),
        ("---\ntask_id: a\nmodifies: a\n", 1, "not closed"),
        ("\n\n---\ntask_id: a\nmodifies: ..\n---\n", 5, "climbs"),
    ],
)
def test_errors_name_the_line_and_what_is_wrong(text: str, line: int, part: str) -> None:
    error = read(text, "/specs/any.md")
    assert isinstance(error, SpecError)
    assert part in error.reason
    assert error.line == line
    assert error.file == "/specs/any.md"
    assert len(error.reason) < 500


def test_a_file_name_that_is_no_id_asks_for_a_task_id() -> None:
    error = read("---\nmodifies: a\n---\n", "/specs/S1 login.md")
    assert isinstance(error, SpecError)
    assert "write task_id: in the front matter" in error.reason


def test_a_given_project_that_is_no_id_is_an_error() -> None:
    assert isinstance(read(WHOLE, project="a/b"), SpecError)


@pytest.mark.parametrize("name", ["S1.md", "P01-plan.md", "S10-login.md"])
def test_runnable_names_need_no_task_id(name: str) -> None:
    assert isinstance(read("---\nmodifies: a\n---\n", f"/s/{name}"), Spec)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PRD.md", "# A document\n"),
        ("SHARED.md", "---\ntitle: x\n---\n"),
        ("s1.md", "---\ntitle: x\n---\n"),
        ("HOW.md", "---\nText under a rule\n---\nmore\n"),
        ("HOW.md", "---\n\nA rule at the top, and never another one. project: x\n"),
        ("empty.md", ""),
    ],
)
def test_other_files_are_documents(name: str, text: str) -> None:
    assert read(text, f"/s/{name}") == Document(f"/s/{name}")


def test_a_runnable_name_without_front_matter_is_a_document_with_a_warning() -> None:
    parsed = read("# Login\n", "/s/S10-login.md")
    assert isinstance(parsed, Document)
    assert "no front matter" in parsed.warnings[0]


def test_broken_front_matter_of_no_spec_is_a_document_with_a_warning() -> None:
    parsed = read("---\n# T\nsee: this: that\n---\n", "/s/README.md")
    assert isinstance(parsed, Document)
    assert "line 3" in parsed.warnings[0]


def test_a_byte_order_mark_and_windows_line_ends_are_taken() -> None:
    content = b"\xef\xbb\xbf" + WHOLE.replace("\n", "\r\n").encode()
    assert spec_of(content).body == "# Log people in\n\nDo it.\n"
    error = read(b"\xef\xbb\xbf---\r\ntask_id: a\r\nmodifies: /x\r\n---\r\n")
    assert isinstance(error, SpecError)
    assert error.line == 3


def test_what_is_not_utf8_is_told_with_its_place() -> None:
    error = read(b"---\ntask_id: a\nmodifies: caf\xe9\n---\n")
    assert isinstance(error, SpecError)
    assert error.line == 3
    assert "byte 29 (0xe9) is not UTF-8" in error.reason
    assert isinstance(read(WHOLE.encode("utf-16"), "/s/notes.md"), SpecError)
    assert isinstance(read(b"# caf\xe9\n", "/s/notes.md"), Document)


def test_a_file_over_the_limit_is_an_error_only_where_it_could_be_a_spec() -> None:
    error = read(WHOLE + "x" * 1024 * 1024)
    assert isinstance(error, SpecError)
    assert "bytes, more than the 1048576" in error.reason
    assert isinstance(read("x" * 1024 * 1025, "/s/research.md"), Document)


def test_what_a_generator_wrote_is_kept() -> None:
    spec = spec_of(with_line("generated_by: gaps\nevidence_key: todo:a.py:3\ngeneration: 2"))
    assert (spec.generated_by, spec.evidence_key, spec.generation) == ("gaps", "todo:a.py:3", 2)


def test_extras_hold_what_has_no_column() -> None:
    extras = spec_of(WHOLE).extras
    assert (extras.executor, extras.verify, extras.timeout_minutes) == ("codex", "make test", 90)
