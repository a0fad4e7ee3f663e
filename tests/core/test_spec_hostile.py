"""No bytes whatever make `parse` raise, or take long."""

import time

import yaml
from hypothesis import given
from hypothesis import strategies as st

from dispatch_controller.core import ids, paths
from dispatch_controller.core.spec import Document, Parsed, Spec, SpecError, parse

KEYS = [
    "task_id",
    "project",
    "priority",
    "estimated_minutes",
    "depends_on",
    "modifies",
    "exclusive",
    "executor",
    "max_retries",
    "timeout_minutes",
    "verify",
    "title",
    "generation",
]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.dates()
    | st.binary(max_size=8)
    | st.sampled_from(["S1-a", "src/a.py", "High", "../x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def sound(parsed: Parsed) -> None:
    """Assert that an outcome holds only what the rest of the program may rely on."""
    match parsed:
        case Spec():
            assert ids.problem(parsed.task_id) is ids.problem(parsed.project) is None
            assert ids.problem(parsed.executor) is None
            assert parsed.modifies
            assert not any(map(paths.problem, parsed.modifies))
            assert parsed.priority >= 0 <= parsed.max_retries
            assert parsed.estimated_minutes >= 1 <= parsed.timeout_minutes
        case SpecError():
            assert parsed.line >= 1
            assert 0 < len(parsed.reason) < 1000
            parsed.reason.encode()
        case Document():
            assert parsed.path


@given(st.binary(max_size=200), st.sampled_from(["/s/S1.md", "/s/a.md", "S1"]))
def test_any_bytes(content: bytes, path: str) -> None:
    sound(parse(path, content, default_project="p"))


@given(st.binary(max_size=100), st.text(max_size=100))
def test_anything_between_the_rules(content: bytes, text: str) -> None:
    for inside in (content, text.encode("utf-8", "replace")):
        block = b"---\ntask_id: S1\nmodifies: [a]\n" + inside + b"\n---\nbody"
        sound(parse("/s/a.md", block, default_project="p"))


@given(st.dictionaries(st.sampled_from(KEYS), values), st.booleans())
def test_any_yaml_values(front: dict[str, object], flow: bool) -> None:
    block = yaml.safe_dump(front, allow_unicode=True, default_flow_style=flow)
    sound(parse("/s/S1.md", f"---\n{block}---\n".encode(), default_project="p"))


@given(st.text(), st.text())
def test_any_project_names(project: str, folder: str) -> None:
    content = b"---\ntask_id: S1\nmodifies: [a]\n---\n"
    sound(parse("/s/S1.md", content, project=project, default_project=folder))
    sound(parse("/s/S1.md", content, default_project=folder))


def test_a_long_text_is_read_quickly() -> None:
    started = time.monotonic()
    for body in ("# a" + " " * 900_000 + "b", "# " * 400_000, "\n" * 900_000, "-" * 900_000):
        content = f"---\ntask_id: S1\nmodifies: a\n---\n{body}\n".encode()
        sound(parse("/s/S1.md", content, default_project="p"))
        sound(parse("/s/S1.md", body.encode(), default_project="p"))
        sound(parse("/s/S1.md", f"---\n{body}".encode(), default_project="p"))
    assert time.monotonic() - started < 20


def test_hostile_yaml_is_refused_quickly() -> None:
    bomb = "a: &a [x,x]\n" + "".join(f"b{n}: &b{n} [*a,*a]\n" for n in range(1000))
    started = time.monotonic()
    for inside in (
        bomb,
        "[" * 60_000,
        "{" * 60_000,
        "- " * 30_000,
        "? " * 30_000,
        "a: " * 20_000,
        "'" * 60_001,
        "\n" * 60_000 + "\t",
        "<<: [" + "{a: b}, " * 8000,
    ):
        content = f"---\ntask_id: S1\n{inside}\n---\n".encode()
        assert isinstance(parse("/s/S1.md", content, default_project="p"), SpecError)
    assert time.monotonic() - started < 20
