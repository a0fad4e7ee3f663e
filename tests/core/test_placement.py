"""Where a task may run, and why it does not: the rules of one pass, row by row, and together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_controller.core.paths import conflict
from dispatch_controller.core.placement import (
    Board,
    Conditions,
    Lock,
    Placement,
    Reason,
    place,
    waiting,
)
from dispatch_controller.core.times import iso
from dispatch_controller.model import Node, Task, TaskStatus
from tests.make import NOW, extras, held, node, task

NODES = ("n1", "n2", "n3", "codex-1")
ALL_KNOWN = {f"/specs/p/T{n}.md": extras() for n in range(20)}


def conditions(**fields: object) -> Conditions:
    known = Conditions(extras=ALL_KNOWN, alive=frozenset(NODES))
    return replace(known, **fields)  # type: ignore[arg-type]


def board(
    nodes: Sequence[Node] = (node(),),
    *,
    at_work: Sequence[Task] = (),
    locks: Sequence[Lock] = (),
    **fields: object,
) -> Board:
    return Board(nodes, at_work, locks, conditions(**fields), NOW)


def node_of(verdict: Placement | Reason) -> str:
    assert isinstance(verdict, Placement), verdict
    return verdict.node


def reason(verdict: Placement | Reason) -> Reason:
    assert isinstance(verdict, Reason), verdict
    return verdict


# Rule 4: the node.


@pytest.mark.parametrize(
    ("nodes", "fields", "state"),
    [
        ([node(enabled=False)], {}, "disabled"),
        ([node(slots=0)], {}, "no slots"),
        ([node(slots=-1)], {}, "no slots"),
        ([node(quarantined=True, quarantine_reason="score 55")], {}, "quarantined: score 55"),
        ([node(quarantined=True)], {}, "quarantined: no reason given"),
        ([node()], {"alive": frozenset()}, "not reachable"),
        ([node()], {"alive": frozenset(), "unasked": frozenset({"n1"})}, "not asked yet"),
        ([node()], {"unfit": {("n1", "glm"): "opencode is missing"}}, "opencode is missing"),
        ([node(slots=1)], {"at_work": [held()]}, "full"),
        ([node(slots=1)], {"at_work": [held(status=TaskStatus.CLAIMED)]}, "full"),
        ([node(slots=1)], {"at_work": [held("T1"), held("T2")]}, "full"),
        # A node that is out says so, full or not.
        ([node(slots=1, enabled=False)], {"at_work": [held()]}, "disabled"),
    ],
)
def test_a_node_that_takes_nothing_says_why(
    nodes: list[Node], fields: dict[str, object], state: str
) -> None:
    asked = board(nodes, **fields)  # type: ignore[arg-type]
    assert asked.free_slots == 0
    found = reason(asked.consider(task("T9")))
    assert found.kind == "no_slot"
    assert found.details["nodes"] == {"n1": state}
    assert f"n1 is {state}" in found.text


@pytest.mark.parametrize(
    ("nodes", "chosen"),
    [
        ([node("n1"), node("n2", priority=1)], "n2"),
        ([node("n1", priority=0), node("n2", priority=1, slots=99)], "n1"),
        ([node("n1"), node("n2", slots=3)], "n2"),
        ([node("n2"), node("n1")], "n1"),
        ([node("n1", slots=3), node("n2", slots=3)], "n2"),  # n1 has one at work
        ([node("n1", priority=-1, enabled=False), node("n2")], "n2"),
    ],
)
def test_the_lowest_priority_then_the_most_free_slots_then_the_name(
    nodes: list[Node], chosen: str
) -> None:
    one = [held()] if nodes[0].slots == nodes[1].slots == 3 else []
    assert node_of(board(nodes, at_work=one).consider(task("T9"))) == chosen


def test_the_node_of_the_last_failure_is_chosen_only_if_no_other_fits() -> None:
    nodes = [node("n1", priority=0), node("n2", priority=9)]
    assert node_of(board(nodes, failed_on={"T9": "n1"}).consider(task("T9"))) == "n2"
    assert node_of(board(nodes[:1], failed_on={"T9": "n1"}).consider(task("T9"))) == "n1"
    assert node_of(board(nodes, failed_on={"T8": "n1"}).consider(task("T9"))) == "n1"


def test_free_slots_are_those_that_a_task_could_take() -> None:
    nodes = [node("n1", slots=4), node("n2", slots=2), node("n3", enabled=False, slots=9)]
    assert board(nodes, at_work=[held("T1"), held("T2", node="n2")]).free_slots == 4
    assert board(nodes, unfit={("n1", "glm"): "no git"}).free_slots == 2
    assert board(nodes, parked={("glm", "direct"): NOW + 1}).free_slots == 0
    overfull = [held(f"T{n}") for n in range(9)]
    assert board(nodes, at_work=overfull).free_slots == 2


def test_no_slot_tells_until_when_as_far_as_known() -> None:
    at_work = [
        held("T1", started_at=NOW - 600, estimated_minutes=30),
        held("T2", started_at=NOW - 600, estimated_minutes=20),
    ]
    found = reason(board(at_work=at_work).consider(task("T9")))
    assert found.details["expected"] == iso(NOW + 600)
    late = reason(board([node(slots=1)], at_work=[held(started_at=0.0)]).consider(task("T9")))
    assert late.details["expected"] == iso(NOW)
    unknown = reason(board([node(slots=1)], at_work=[held(started_at=None)]).consider(task("T9")))
    assert "expected" not in unknown.details


def test_a_row_held_by_a_node_that_is_gone_or_by_none_takes_no_slot_but_holds_its_files() -> None:
    for where in ("gone", None):
        asked = board([node(slots=1)], at_work=[held(node=where, modifies=("a.py",))])
        assert asked.free_slots == 1
        assert reason(asked.consider(task("T9", modifies=("a.py",)))).kind == "file_held"


# Rule 3: the executor.


@pytest.mark.parametrize(
    ("wanted", "nodes", "fields", "chosen", "runs"),
    [
        ("glm", [node("n1")], {}, "n1", "glm"),
        ("claude", [node("n1"), node("n2", executor="claude")], {}, "n2", "claude"),
        ("codex", [node("n1", priority=0), node("codex-1", executor="codex")], {}, "codex-1",
         "codex"),
        # codex falls back to glm where no node for it is known or free.
        ("codex", [node("n1")], {}, "n1", "glm"),
        ("codex", [node("n1"), node("codex-1", executor="codex", slots=0)], {}, "n1", "glm"),
        ("codex", [node("n1"), node("codex-1", executor="codex")],
         {"parked": {("codex", "direct"): NOW + 60}}, "n1", "glm"),
        # A node's name pins the task to it, and it runs that node's executor.
        ("n2", [node("n1", priority=0), node("n2", executor="claude")], {}, "n2", "claude"),
        ("n2", [node("n1"), node("n2")], {"failed_on": {"T9": "n2"}}, "n2", "glm"),
        # An executor's name outranks a node's.
        ("glm", [node("glm", executor="claude"), node("n1")], {}, "n1", "glm"),
    ],
)  # fmt: skip
def test_the_nodes_executor_equals_the_specs(
    wanted: str, nodes: list[Node], fields: dict[str, object], chosen: str, runs: str
) -> None:
    verdict = board(nodes, extras={"/specs/p/T9.md": extras(wanted)}, **fields).consider(  # type: ignore[arg-type]
        task("T9")
    )
    assert node_of(verdict) == chosen
    assert isinstance(verdict, Placement)
    assert verdict.executor == runs


@pytest.mark.parametrize(
    ("wanted", "nodes", "fields", "kind"),
    [
        ("claude", [node()], {}, "no_executor"),
        ("glm", [], {}, "no_executor"),
        ("codex", [node(executor="claude")], {}, "no_executor"),
        ("n2", [node("n1"), node("n2", enabled=False)], {}, "no_slot"),
        ("glm", [node()], {"parked": {("glm", "direct"): NOW + 60}}, "executor_parked"),
        ("codex", [node(slots=0)], {}, "no_executor"),
    ],
)
def test_no_such_executor_and_a_parked_one_are_told_apart(
    wanted: str, nodes: list[Node], fields: dict[str, object], kind: str
) -> None:
    asked = board(nodes, extras={"/specs/p/T9.md": extras(wanted)}, **fields)  # type: ignore[arg-type]
    assert reason(asked.consider(task("T9"))).kind == kind
    assert not asked.may_place("/specs/p/T9.md")


def test_parking_is_per_account_and_ends_at_its_time() -> None:
    nodes = [node("n1", api_mode="direct"), node("n2", api_mode="proxy")]
    assert node_of(board(nodes, parked={("glm", "direct"): NOW + 1}).consider(task())) == "n2"
    assert node_of(board(nodes, parked={("glm", "direct"): NOW}).consider(task())) == "n1"
    full = board(
        [node("n1", slots=1), node("n2", api_mode="proxy")],
        at_work=[held(node="n1")],
        parked={("glm", "proxy"): NOW + 60},
    )
    assert reason(full.consider(task())).kind == "no_slot"  # a slot will be free before that


def test_a_file_nobody_has_read_yet_may_still_be_placed() -> None:
    assert board().may_place("/specs/new.md")


# Rule 2: files.


@pytest.mark.parametrize(
    ("mine", "theirs", "free"),
    [
        ("src/a.py", "src/a.py", False),
        ("src/a.py", "./src//A.PY", False),
        ("src/caf\u00e9.py", "src/cafe\u0301.py", False),
        ("src", "src/a.py", False),
        ("src/a.py", "src", False),
        ("src/*.py", "src/b.txt", False),
        ("**", "docs/x.md", False),
        ("src/a.py", "src/a.pyc", True),
        ("src2", "src", True),
        ("src/a/*.py", "src/b/*.py", True),
    ],
)
def test_a_file_of_the_same_project_is_held_by_one_task(mine: str, theirs: str, free: bool) -> None:
    other = held(modifies=(theirs,), project="p")
    verdict = board(at_work=[other]).consider(task("T9", modifies=(mine,)))
    assert isinstance(verdict, Placement) == free
    elsewhere = replace(other, project="q")
    assert isinstance(board(at_work=[elsewhere]).consider(task("T9", modifies=(mine,))), Placement)
    locked = board(locks=[Lock("p", theirs, "T1")]).consider(task("T9", modifies=(mine,)))
    assert isinstance(locked, Placement) == free
    if not free:
        for found in (verdict, locked):
            assert reason(found).kind == "file_held"
            assert reason(found).details["task"] == "T1"
            assert "T1" in reason(found).text


def test_a_lock_of_another_project_is_no_conflict() -> None:
    verdict = board(locks=[Lock("q", "a.py", "T1")]).consider(task("T9", modifies=("a.py",)))
    assert isinstance(verdict, Placement)


# The other reasons.


def test_paused_and_gone_are_reasons_of_their_own() -> None:
    paused = reason(board(paused=frozenset({"p"})).consider(task()))
    assert (paused.kind, paused.text) == ("paused", "project p is paused in projects.json")
    gone = reason(board(extras={}).consider(task()))
    assert gone.kind == "spec_gone"
    assert gone.details == {"spec_file": "/specs/p/T1.md"}


C, P = TaskStatus.COMPLETED, TaskStatus.PENDING


@pytest.mark.parametrize(
    ("row", "parents", "cycle", "kind"),
    [
        (task(), {}, None, None),
        (task(depends_on=("A",)), {"A": C}, None, None),
        (task(depends_on=("A",)), {"A": P}, None, "dependencies"),
        *[(task(depends_on=("A", "B")), {"A": C, "B": status}, None, "dependencies")
          for status in TaskStatus if status is not C],
        (task(depends_on=("A",)), {}, None, "unknown_dependency"),
        (task(depends_on=("A", "B")), {"A": P}, None, "unknown_dependency"),
        (task(depends_on=None), {}, None, "unknown_dependency"),
        (task(depends_on=("T1",)), {"T1": P}, ("T1", "T1"), "cycle"),
        (task(lease_owner="backoff:00000000", lease_expires_at=NOW + 60), {}, None, "backoff"),
        (task(lease_owner="backoff:00000000", lease_expires_at=NOW), {}, None, None),
        (task(lease_owner="other:1", lease_expires_at=NOW + 60), {}, None, "leased"),
        (task(lease_owner="other:1"), {}, None, None),
        (task(lease_expires_at=NOW + 60), {}, None, None),
        (task(depends_on=("A",), lease_owner="backoff:00000000", lease_expires_at=NOW + 60),
         {"A": P}, None, "dependencies"),
    ],
)  # fmt: skip
def test_what_a_task_waits_for_before_any_node_is_asked(
    row: Task, parents: dict[str, TaskStatus], cycle: tuple[str, ...] | None, kind: str | None
) -> None:
    found = waiting(row, parents, cycle, NOW)
    assert (found and found.kind) == kind


def test_waiting_tells_which_ids_their_states_and_until_when() -> None:
    found = waiting(task(depends_on=("A", "B")), {"A": C, "B": P}, None, NOW)
    assert found == Reason("dependencies", "waits for B (pending)", {"waits_for": {"B": "pending"}})
    unknown = waiting(task(depends_on=("A", "X")), {"A": C}, None, NOW)
    assert unknown is not None
    assert unknown.details == {"unknown": ["X"]}
    back = waiting(task(lease_owner="backoff:00000000", lease_expires_at=NOW + 60), {}, None, NOW)
    assert back is not None
    assert back.details == {"until": iso(NOW + 60)}
    cycle = waiting(task(depends_on=("B",)), {"B": P}, ("T1", "B", "T1"), NOW)
    assert cycle == Reason("cycle", "in a cycle: T1 → B → T1", {"cycle": ["T1", "B", "T1"]})


def test_what_thousands_of_tasks_wait_for_is_told_in_a_few_words() -> None:
    many = tuple(f"T{number}" for number in range(5000))
    circle = waiting(task(depends_on=("T1",)), {"T1": P}, (*many, "T0"), NOW)
    assert circle is not None
    assert circle.text == "in a cycle: T0 → T1 → T2 → T3 → T4 → T5 → T6 → (4993 more) → T0"
    assert len(str(circle.details)) < 2000
    for parents in ({}, dict.fromkeys(many, P)):
        reason = waiting(task(depends_on=many), parents, None, NOW)
        assert reason is not None
        assert "(4992 more)" in reason.text


# One pass.


def test_placements_follow_the_order_of_the_candidates_until_no_slot_is_free() -> None:
    asked = board([node(slots=2)])
    placed = place(asked, [task("T3"), task("T1"), task("T2")])
    assert [p.task.id for p in placed] == ["T3", "T1"]
    assert place(asked, [task("T2")]) == []


def test_a_task_that_cannot_run_holds_up_nothing_behind_it() -> None:
    rows = [
        task("T1", modifies=("a",)),
        task("T2", modifies=("a",)),
        task("T3", project="q"),
        task("T4"),
    ]
    placed = place(board([node(slots=9)], paused=frozenset({"q"})), rows)
    assert [p.task.id for p in placed] == ["T1", "T4"]


# All rules at once, on any fleet.


@dataclass(frozen=True)
class World:
    nodes: list[Node]
    at_work: list[Task]
    locks: list[Lock]
    waiting: list[Task]
    known: Conditions

    def board(self) -> Board:
        return Board(self.nodes, self.at_work, self.locks, self.known, NOW)


executors = st.sampled_from(["glm", "codex", "claude", "n2"])
paths = st.lists(
    st.sampled_from(["a", "a/b.py", "a/*.py", "A/B.PY", "c.py", "d/e/f", "d/e", "**"]), max_size=2
).map(tuple)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    nodes = [
        node(
            name,
            slots=draw(st.integers(0, 3)),
            enabled=draw(st.integers(0, 4)) > 0,
            quarantined=draw(st.integers(0, 4)) == 0,
            executor=draw(st.sampled_from(["glm", "codex"])),
            priority=draw(st.integers(0, 2)),
            api_mode=draw(st.sampled_from(["direct", "proxy"])),
        )
        for name in draw(st.lists(st.sampled_from(["n1", "n2", "n3"]), unique=True))
    ]
    projects = st.sampled_from(["p", "q"])
    where = st.sampled_from(["n1", "n2", "n3", "gone", None])
    at_work = [
        held(f"H{n}", node=draw(where), modifies=draw(paths), project=draw(projects))
        for n in range(draw(st.integers(0, 4)))
    ]
    rows = [
        task(f"T{n}", modifies=draw(paths), project=draw(projects), priority=n)
        for n in range(draw(st.integers(0, 10)))
    ]
    pairs = st.tuples(executors, st.sampled_from(["direct", "proxy"]))
    known = Conditions(
        extras={r.spec_file: extras(draw(executors)) for r in rows if draw(st.integers(0, 5))},
        alive=frozenset(n for n in ("n1", "n2", "n3") if draw(st.integers(0, 4))),
        failed_on=draw(st.dictionaries(st.sampled_from(["T0", "T1", "T2"]), st.just("n1"))),
        parked=dict.fromkeys(draw(st.sets(pairs, max_size=1)), NOW + 60),
        paused=draw(st.sampled_from([frozenset(), frozenset({"q"})])),
        unfit=draw(st.dictionaries(st.just(("n3", "glm")), st.just("no git"), max_size=1)),
    )
    locks = [
        Lock(draw(projects), path, "L")
        for path in draw(st.lists(st.sampled_from(["c.py", "d"]), max_size=1))
    ]
    return World(nodes, at_work, locks, rows, known)


@given(worlds())
def test_no_pass_breaks_a_rule(world: World) -> None:
    placed = place(world.board(), world.waiting)
    by_name = {n.name: n for n in world.nodes}
    order = [p.task.id for p in placed]
    assert order == [t.id for t in world.waiting if t.id in set(order)]
    for p in placed:
        chosen = by_name[p.node]
        assert chosen.enabled
        assert not chosen.quarantined
        assert p.node in world.known.alive
        assert p.task.project not in world.known.paused
        assert chosen.executor == p.executor
        assert (chosen.executor, chosen.api_mode) not in world.known.parked
        assert (p.node, p.executor) not in world.known.unfit
        wanted = world.known.extras[p.task.spec_file].executor
        allowed = {"codex": {"codex", "glm"}, "n2": {by_name[p.node].executor}}
        assert p.executor in allowed.get(wanted, {wanted})
        assert wanted != "n2" or p.node == "n2"
        for lock in world.locks:
            assert lock.project != p.task.project or not conflict(p.task.modifies, [lock.path])
    for name, chosen in by_name.items():
        before = sum(t.node == name for t in world.at_work)
        added = sum(p.node == name for p in placed)
        assert not added or before + added <= chosen.slots
    busy = [(t.id, t.project, t.modifies) for t in world.at_work]
    for p in placed:
        for _, project, files in busy:
            assert project != p.task.project or not conflict(files, p.task.modifies)
        busy.append((p.task.id, p.task.project, p.task.modifies))


@given(worlds())
def test_a_task_has_a_reason_exactly_when_the_pass_leaves_it(world: World) -> None:
    after = world.board()
    placed = {p.task.id for p in place(after, world.waiting)}
    for row in world.waiting:
        if row.id not in placed:
            assert isinstance(after.consider(row), Reason)
        else:
            assert isinstance(world.board().consider(row), Placement)
    assert place(after, [row for row in world.waiting if row.id not in placed]) == []


@given(worlds())
def test_what_may_not_be_placed_is_never_placed(world: World) -> None:
    asked = world.board()
    closed = [row for row in world.waiting if not asked.may_place(row.spec_file)]
    assert place(world.board(), closed) == []
    if not asked.free_slots:
        assert place(asked, world.waiting) == []


@given(worlds())
def test_the_same_world_gives_the_same_pass(world: World) -> None:
    turned = replace(world, nodes=world.nodes[::-1], at_work=world.at_work[::-1])
    assert place(world.board(), world.waiting) == place(turned.board(), turned.waiting)
