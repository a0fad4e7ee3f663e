from collections.abc import Mapping
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_controller.core.plan import KnownTask, Plan, SpecColumns, SpecWarning, report
from dispatch_controller.core.registration import plan
from dispatch_controller.core.spec import Document, Spec, SpecError
from dispatch_controller.model import TaskStatus

HELD_OR_ENDED = ["claimed", "running", "completed", "deadletter"]


def spec(task_id: str, project: str = "p", path: str | None = None, **fields: object) -> Spec:
    base = Spec(
        task_id=task_id,
        project=project,
        path=path or f"/specs/{project}/{task_id}.md",
        spec_hash="1" * 64,
        modifies=("a.py",),
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def row(columns: SpecColumns, status: str = "pending") -> KnownTask:
    """The row as the store would hold it once the columns are written."""
    return KnownTask(status=TaskStatus(status), **asdict(columns))


def row_of(one: Spec, status: str = "pending", **fields: object) -> KnownTask:
    known = row(plan([one], [], located={}).inserts[0], status)
    return replace(known, **fields)  # type: ignore[arg-type]


def apply(rows: list[KnownTask], planned: Plan) -> list[KnownTask]:
    """Write a plan, as the store does."""
    known = {task.id: task for task in rows}
    for columns in planned.inserts:
        assert columns.id not in known
        known[columns.id] = row(columns)
    for columns in planned.updates:
        assert known[columns.id].status in (TaskStatus.PENDING, TaskStatus.FAILED)
        known[columns.id] = row(columns, known[columns.id].status)
    for task_id, depends_on in planned.links:
        known[task_id] = replace(known[task_id], depends_on=depends_on)
    for task_id, spec_hash in planned.hashes:
        known[task_id] = replace(known[task_id], spec_hash=spec_hash)
    return list(known.values())


def events(planned: Plan) -> list[tuple[str, str]]:
    return [(event.event_type, event.task_id) for event in planned.events]


def test_new_files_become_tasks_with_the_columns_of_their_spec() -> None:
    one = spec("S1", priority=0, exclusive=True, max_retries=5, estimated_minutes=7)
    assert plan([one], [], located={}).inserts == (
        SpecColumns(
            id="S1",
            project="p",
            spec_file="/specs/p/S1.md",
            spec_hash="1" * 64,
            depends_on=(),
            modifies=("a.py",),
            exclusive=True,
            priority=0,
            max_retries=5,
            estimated_minutes=7,
        ),
    )


def test_the_same_file_again_changes_nothing() -> None:
    one = spec("S1")
    planned = plan([one], [row_of(one)], located={})
    assert planned == Plan(unchanged=("S1",))


def test_a_hash_that_is_the_same_leaves_what_others_wrote_in_the_row() -> None:
    one = spec("S1")
    planned = plan([one], [row_of(one, priority=0, max_retries=9)], located={})
    assert planned == Plan(unchanged=("S1",))


@pytest.mark.parametrize("status", ["pending", "failed"])
def test_a_changed_file_updates_a_task_that_waits(status: str) -> None:
    old, new = spec("S1"), spec("S1", spec_hash="2" * 64, priority=0)
    planned = plan([new], [row_of(old, status)], located={})
    assert [columns.priority for columns in planned.updates] == [0]
    assert (planned.unchanged, planned.events) == ((), ())


@pytest.mark.parametrize("status", HELD_OR_ENDED)
def test_a_changed_file_of_any_other_task_is_an_event_told_once(status: str) -> None:
    old, new = spec("S1"), spec("S1", spec_hash="2" * 64, priority=0)
    known = [row_of(old, status)]
    planned = plan([new], known, located={})
    assert (planned.updates, planned.unchanged) == ((), ("S1",))
    assert events(planned) == [("spec_changed", "S1")]
    assert status in planned.warnings[0].reason
    again = plan([new], known, located={}, reported=planned.standing)
    assert (again.events, again.standing) == ((), planned.standing)
    changed_more = spec("S1", spec_hash="3" * 64)
    assert events(plan([changed_more], known, located={}, reported=planned.standing))


def test_a_row_without_a_hash_is_compared_by_its_columns() -> None:
    one = spec("S1")
    same = plan([one], [row_of(one, spec_hash=None)], located={})
    assert (same.updates, same.unchanged, same.hashes) == ((), ("S1",), (("S1", "1" * 64),))
    other = plan([one], [row_of(one, spec_hash=None, priority=9)], located={})
    assert [columns.priority for columns in other.updates] == [2]
    held = plan([one], [row_of(one, "running", spec_hash=None, priority=9)], located={})
    assert held == Plan(unchanged=("S1",))


def test_a_lost_file_is_an_event_told_once() -> None:
    known = [row_of(spec("S1"), status) for status in ("pending",)]
    planned = plan([], known, located={})
    assert events(planned) == [("spec_gone", "S1")]
    assert plan([], known, located={}, reported=planned.standing).events == ()
    back = plan([spec("S1")], known, located={}, reported=planned.standing)
    assert (back.events, back.standing) == ((), frozenset())


def test_a_file_that_is_there_and_was_not_read_is_not_lost() -> None:
    known = [row_of(spec("S1"))]
    assert plan([], known, located={"/specs/p/S1.md": "/specs/p/S1.md"}) == Plan()


@pytest.mark.parametrize("status", ["pending", "failed"])
def test_a_moved_file_keeps_its_task(status: str) -> None:
    moved = spec("S1", path="/specs/p/done/S1.md")
    planned = plan([moved], [row_of(spec("S1"), status)], located={})
    assert [columns.spec_file for columns in planned.updates] == ["/specs/p/done/S1.md"]
    assert events(planned) == [("spec_moved", "S1")]
    assert planned.errors == ()


def test_a_moved_file_of_a_held_task_changes_nothing() -> None:
    moved = spec("S1", path="/specs/p/done/S1.md")
    assert plan([moved], [row_of(spec("S1"), "running")], located={}) == Plan(unchanged=("S1",))


def test_a_row_that_spells_its_path_otherwise_is_the_same_file() -> None:
    one = spec("S1")
    known = row_of(one, spec_file="specs/p/S1.md")
    planned = plan([one], [known], located={"specs/p/S1.md": one.path})
    assert [columns.spec_file for columns in planned.updates] == [one.path]
    assert planned.errors == ()


def test_a_file_that_now_describes_another_task_leaves_the_old_one_without_a_file() -> None:
    renamed = spec("S2", path="/specs/p/S1.md")
    planned = plan([renamed], [row_of(spec("S1"))], located={"/specs/p/S1.md": "/specs/p/S1.md"})
    assert [columns.id for columns in planned.inserts] == ["S2"]
    assert events(planned) == [("spec_gone", "S1")]


def test_of_two_new_files_with_one_id_the_upper_one_is_taken() -> None:
    upper, lower = spec("S1"), spec("S1", path="/specs/p/_archive/S1.md")
    planned = plan([lower, upper], [], located={})
    assert [columns.spec_file for columns in planned.inserts] == [upper.path]
    (error,) = planned.errors
    assert error.file == lower.path
    assert upper.path in error.reason
    assert lower.path in error.reason


def test_the_file_that_a_row_names_keeps_the_id() -> None:
    upper, lower = spec("S1"), spec("S1", path="/specs/p/_archive/S1.md")
    planned = plan([upper, lower], [row_of(lower)], located={})
    assert (planned.unchanged, [e.file for e in planned.errors]) == (("S1",), [upper.path])
    elsewhere = row_of(spec("S1", path="/old/S1.md"))
    planned = plan([upper], [elsewhere], located={"/old/S1.md": "/old/S1.md"})
    assert "/old/S1.md" in planned.errors[0].reason
    assert planned.updates == planned.inserts == ()


def test_an_id_of_another_project_is_registered_with_the_project() -> None:
    known = [row_of(spec("S1", "a"))]
    two = [spec("S1", "b"), spec("S2", "b", depends_on=("S1",))]
    planned = plan(two, known, located={"/specs/a/S1.md": "/specs/a/S1.md"})
    assert [columns.id for columns in planned.inserts] == ["S1@b", "S2"]
    assert planned.inserts[1].depends_on == ("S1@b",)
    assert events(planned) == [("id_collision", "S1@b")]
    assert "project a" in planned.warnings[0].reason


def test_two_projects_with_one_id_in_one_batch() -> None:
    planned = plan([spec("S1", "b"), spec("S1", "a"), spec("S1", "c")], [], located={})
    assert [columns.id for columns in planned.inserts] == ["S1", "S1@b", "S1@c"]


def test_ids_that_differ_by_case_alone_do_not_share_a_folder() -> None:
    planned = plan([spec("S1-a"), spec("s1-A")], [], located={})
    assert [columns.id for columns in planned.inserts] == ["S1-a", "s1-A@p"]
    assert "letter case" in planned.warnings[0].reason
    known = apply([], planned)
    assert plan([spec("S1-a"), spec("s1-A")], known, located={}).unchanged == ("S1-a", "s1-A@p")


def test_an_id_taken_twice_over_is_an_error() -> None:
    known = [row_of(spec("S1", "a")), replace(row_of(spec("S9", "z")), id="S1@b")]
    here = {task.spec_file: task.spec_file for task in known}
    planned = plan([spec("S1", "b")], known, located=here)
    assert planned.inserts == ()
    assert "choose another" in planned.errors[0].reason


def test_short_dependencies_are_resolved_and_unresolved_ones_reported() -> None:
    specs = [
        spec("S10-login"),
        spec("S2-a"),
        spec("S2-b"),
        spec("S3", depends_on=("S10", "S2", "S99")),
    ]
    planned = plan(specs, [], located={})
    assert planned.inserts[-1].depends_on == ("S10-login", "S2", "S99")
    reasons = [warning.reason for warning in planned.warnings]
    assert "any of S2-a, S2-b" in reasons[0]
    assert "'S99' names no known task" in reasons[1]


def test_what_could_not_be_resolved_is_tried_again_for_rows_too() -> None:
    waiting = row_of(spec("S3", depends_on=("S10",)))
    planned = plan([spec("S10-login")], [waiting], located={"/specs/p/S3.md": "/specs/p/S3.md"})
    assert planned.links == (("S3", ("S10-login",)),)
    with_file = plan([spec("S10-login"), spec("S3", depends_on=("S10",))], [waiting], located={})
    assert with_file.links == (("S3", ("S10-login",)),)
    assert with_file.unchanged == ("S3",)


@pytest.mark.parametrize("status", HELD_OR_ENDED)
def test_dependencies_of_a_task_that_does_not_wait_are_left_alone(status: str) -> None:
    known = row_of(spec("S3", depends_on=("S10",)), status)
    here = {"/specs/p/S3.md": "/specs/p/S3.md"}
    assert plan([spec("S10-login")], [known], located=here).links == ()


def test_a_cycle_is_reported_for_every_task_in_it_and_for_no_other() -> None:
    specs = [
        spec("A", depends_on=("C",)),
        spec("B", depends_on=("A",)),
        spec("C", depends_on=("B",)),
        spec("D", depends_on=("A",)),
    ]
    planned = plan(specs, [], located={})
    assert len(planned.inserts) == 4
    assert set(planned.cycles) == {"A", "B", "C"}
    assert [warning.file for warning in planned.warnings] == [one.path for one in specs[:3]]
    assert "A -> C -> B -> A" in planned.warnings[0].reason


def test_a_cycle_through_a_completed_task_blocks_nothing() -> None:
    a, b = spec("A", depends_on=("B",)), spec("B", depends_on=("A",))
    known = [row_of(a, "completed"), row_of(b)]
    assert plan([a, b], known, located={}).cycles == {}


def test_a_broken_depends_on_of_a_row_is_left_alone() -> None:
    one = spec("A")
    assert plan([one], [row_of(one, depends_on=None)], located={}) == Plan(unchanged=("A",))


def test_the_report_has_the_form_that_programs_rely_on() -> None:
    planned = plan([spec("S1"), spec("S2", warnings=("line 4: odd",))], [], located={})
    assert report(
        planned,
        documents=[Document("/specs/p/PRD.md")],
        errors=[SpecError("/specs/p/x.md", 3, "bad")],
        warnings=[SpecWarning("/specs/p/link", "a link")],
    ) == {
        "registered": 2,
        "updated": 0,
        "unchanged": 0,
        "documents": 1,
        "errors": [{"file": "/specs/p/x.md", "line": 3, "reason": "bad"}],
        "warnings": [
            {"file": "/specs/p/S2.md", "reason": "line 4: odd"},
            {"file": "/specs/p/link", "reason": "a link"},
        ],
    }


names = st.sampled_from(["S1", "S1-a", "S1-b", "s1-A", "S2", "S2-x", "S3"])
batches = st.lists(
    st.builds(
        spec,
        names,
        st.sampled_from(["p", "q", "P"]),
        st.sampled_from([f"/specs/{n}.md" for n in "abcdefgh"]),
        depends_on=st.lists(names, max_size=3).map(tuple),
        spec_hash=st.sampled_from(["1" * 64, "2" * 64]),
        priority=st.integers(0, 3),
    ),
    max_size=8,
    unique_by=lambda one: one.path,
)
statuses = st.lists(st.sampled_from(TaskStatus), min_size=24, max_size=24)


def here(rows: list[KnownTask]) -> Mapping[str, str]:
    return {task.spec_file: task.spec_file for task in rows}


@given(batches, batches, statuses, st.booleans())
def test_every_file_has_one_outcome_and_the_same_plan_again_changes_nothing(
    before: list[Spec], after: list[Spec], states: list[TaskStatus], kept: bool
) -> None:
    rows = apply([], plan(before, [], located={}))
    rows = [replace(task, status=state) for task, state in zip(rows, states, strict=False)]
    located = here(rows) if kept else {}
    planned = plan(after, rows, located=located)
    outcomes = len(planned.inserts) + len(planned.updates) + len(planned.unchanged)
    assert outcomes + len(planned.errors) == len(after)

    written = apply(rows, planned)
    assert len(written) == len(rows) + len(planned.inserts)
    located = {**located, **({} if not kept else here(written))}
    again = plan(after, written, located=located, reported=planned.standing)
    assert (again.inserts, again.updates, again.links, again.hashes) == ((), (), (), ())
    assert again.events == ()
    assert len(again.unchanged) == outcomes
    assert again.errors == planned.errors
    assert again.cycles == planned.cycles


@given(st.permutations([spec(n, q) for n in ("S1", "S1-a", "S2") for q in ("p", "q")]))
def test_the_order_of_the_files_does_not_matter(specs: list[Spec]) -> None:
    assert plan(specs, [], located={}) == plan(sorted(specs, key=lambda s: s.path), [], located={})
