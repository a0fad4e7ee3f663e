"""One pass over the database: what it reads, how often it asks, and why a task is left."""

# ruff: noqa: ANN401 - columns are passed on to SQL

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_controller.core.dependencies import cycles
from dispatch_controller.core.placement import Conditions, Reason
from dispatch_controller.model import SpecExtras, TaskStatus
from dispatch_controller.store import board, tasks, transitions
from dispatch_controller.store.board import PassResult
from dispatch_controller.store.connection import get_db
from dispatch_controller.store.schema import prepare
from dispatch_controller.store.store import read_snapshot
from dispatch_controller.store.transitions import NewLease
from dispatch_controller.store.writer import Connection
from tests.make import NOW, extras, insert_held, insert_node, insert_task, memory

TRANSACTION = re.compile(r"\s*(PRAGMA|BEGIN|COMMIT|SAVEPOINT|RELEASE|ROLLBACK)", re.IGNORECASE)
ALIVE = frozenset({"n1", "n2", "n3"})


class Known(Mapping[str, SpecExtras]):
    """Every spec file exists and wants glm, but for those that are named."""

    def __init__(self, **executors: str | None) -> None:
        self._executors = {f"/specs/p/{id}.md": name for id, name in executors.items()}

    def __getitem__(self, spec_file: str) -> SpecExtras:
        executor = self._executors.get(spec_file, "glm")
        if executor is None:
            raise KeyError(spec_file)
        return extras(executor)

    def __iter__(self) -> Iterator[str]:
        return iter(self._executors)

    def __len__(self) -> int:
        return len(self._executors)


def run(conn: Connection, known: Known | None = None, **fields: Any) -> PassResult:
    known = known or Known()
    conditions = Conditions(extras=known, alive=ALIVE, **fields)
    return board.run_pass(conn, conditions, lambda _: known, NOW, reputation=True)


def explain(conn: Connection, *ids: str, known: Known | None = None, **fields: Any) -> Any:
    known = known or Known()
    conditions = Conditions(extras=known, alive=ALIVE, **fields)
    graph = {task.id: task.depends_on or () for task in tasks.in_status(conn, *TaskStatus)}
    return board.explain(
        conn, ids, conditions, cycles(graph), lambda _: known, NOW, reputation=True
    )


def placed(found: PassResult) -> list[str]:
    return [placement.task.id for placement in found.placements]


@pytest.fixture
def conn() -> Iterator[Connection]:
    conn = memory()
    yield conn
    conn._conn.close()


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5,000 pending tasks, every third of them behind another one."""
    path = tmp_path_factory.mktemp("crowd") / "dispatch.db"
    prepare(path)
    with get_db(path) as raw:
        raw.execute("BEGIN")
        raw.executemany(
            "INSERT INTO tasks (id, project, spec_file, priority, depends_on, modifies, exclusive)"
            " VALUES (?, ?, ?, ?, ?, ?, 1)",
            [
                (
                    f"T{n:04}", f"p{n % 7}", f"/specs/p/T{n:04}.md", n % 4,
                    json.dumps([f"T{n - 1:04}"] if n % 3 else []), json.dumps([f"f{n}.py"]),
                )
                for n in range(5000)
            ],
        )  # fmt: skip
        raw.execute("COMMIT")
    return path


def statements(path: Path, found: list[PassResult], known: Known, slots: int) -> list[str]:
    """Run a pass, and its claim in the same transaction; return the statements it took."""
    seen: list[str] = []
    with get_db(path) as raw:
        raw.execute("BEGIN")
        conn = Connection(raw)
        insert_node(conn, "n1", slots=slots)
        insert_node(conn, "n2", slots=3, executor="claude")
        raw.set_trace_callback(seen.append)
        result = run(conn, known)
        leases = [
            NewLease(p.task.id, p.node, p.executor, f"{p.node}:{n:08x}", p.task.modifies)
            for n, p in enumerate(result.placements)
        ]
        if leases:
            claims = transitions.claim(conn, NOW, leases, result.held)
            assert len(claims) == len(leases)
        raw.set_trace_callback(None)
        raw.execute("ROLLBACK")
    found.append(result)
    return [sql for sql in seen if not TRANSACTION.match(sql)]


@pytest.mark.parametrize(
    ("slots", "known", "count"),
    [
        (8, Known(), 8),
        (1000, Known(), 1000),
        (1667, Known(), 1667),  # all that are free of dependencies
        (9999, Known(), 1667),
        # Slots stay free since nothing fits them: everything is read, in two statements.
        (8, Known(**{f"T{n:04}": "nobody" for n in range(5000)}), 0),
        (8, Known(**{f"T{n:04}": "nobody" for n in range(4990)}), 3),
        (0, Known(), 0),
    ],
)
def test_a_pass_and_its_claim_take_fewer_than_ten_statements(
    crowd: Path, slots: int, known: Known, count: int
) -> None:
    found: list[PassResult] = []
    asked = statements(crowd, found, known, slots)
    assert len(asked) < 10, asked
    assert len(found[0].placements) == count


def test_no_candidate_is_read_while_no_slot_is_free(crowd: Path) -> None:
    seen: list[str] = []
    with get_db(crowd) as raw:
        raw.execute("BEGIN")
        insert_node(Connection(raw), "n1", slots=0)
        insert_node(Connection(raw), "n2", slots=1)
        insert_node(Connection(raw), "n3", enabled=0)
        insert_held(Connection(raw), "H", node="n2")
        raw.set_trace_callback(seen.append)
        result = run(Connection(raw), parked={("glm", "other"): NOW + 60})
        raw.set_trace_callback(None)
        raw.execute("ROLLBACK")
    assert not [sql for sql in seen if "pending" in sql]
    assert (result.placements, result.considered) == ((), 0)


def test_first_come_by_priority_then_id_over_all_pages(crowd: Path) -> None:
    with get_db(crowd) as raw:
        rows = raw.execute("SELECT id FROM tasks WHERE depends_on = '[]' ORDER BY priority, id")
        wanted = [row["id"] for row in rows]
    read = read_snapshot(
        crowd,
        lambda conn: [
            [task.id for task in page] for page in tasks.candidates(conn, NOW, 100, lambda _: True)
        ],
    )
    assert [len(page) for page in read] == [100, 500, 500, 500, 67]
    assert [id for page in read for id in page] == wanted


def test_pages_end_where_the_first_one_is_the_last(conn: Connection) -> None:
    for n in range(4):
        insert_task(conn, f"T{n}", priority=n % 2)
    sizes = {
        first: [len(page) for page in tasks.candidates(conn, NOW, first, lambda _: True)]
        for first in (1, 3, 4, 5)
    }
    assert sizes == {1: [1, 3], 3: [3, 1], 4: [4], 5: [4]}


@pytest.mark.parametrize(
    ("columns", "candidate"),
    [
        ({}, True),
        ({"depends_on": "[]"}, True),
        ({"depends_on": "[ ]"}, True),
        ({"depends_on": None}, True),
        ({"depends_on": ""}, True),
        ({"depends_on": ["DONE"]}, True),
        ({"depends_on": ["DONE", "DONE"]}, True),
        ({"depends_on": ["DONE", "OPEN"]}, False),
        ({"depends_on": ["OPEN"]}, False),
        ({"depends_on": ["FAILED"]}, False),
        ({"depends_on": ["nobody"]}, False),
        ({"depends_on": ["T1"]}, False),
        ({"depends_on": [1]}, False),
        ({"depends_on": [None]}, False),
        ({"depends_on": [["DONE"]]}, False),
        ({"depends_on": "null"}, False),
        ({"depends_on": "{}"}, False),
        ({"depends_on": '"DONE"'}, False),
        ({"depends_on": "DONE"}, False),
        ({"depends_on": "['DONE']"}, False),
        ({"depends_on": '["DONE"'}, False),
        ({"depends_on": b'["DONE"]'}, True),
        ({"lease_owner": "backoff:00000000", "lease_expires_at": NOW + 1}, False),
        ({"lease_owner": "backoff:00000000", "lease_expires_at": NOW}, True),
        ({"lease_owner": "x", "lease_expires_at": None}, True),
        ({"lease_owner": "x", "lease_expires_at": "tomorrow"}, True),
        ({"lease_owner": None, "lease_expires_at": NOW + 1}, True),
        ({"status": "claimed"}, False),
        ({"status": "running"}, False),
        ({"status": "completed"}, False),
        ({"status": "failed"}, False),
        ({"status": "deadletter"}, False),
        ({"status": None}, False),
        ({"priority": None, "modifies": None, "exclusive": None, "attempt": None}, True),
        ({"priority": "high", "modifies": "src/a.py"}, True),
    ],
)
def test_who_is_a_candidate_and_has_no_reason_to_wait(
    conn: Connection, columns: dict[str, Any], candidate: bool
) -> None:
    insert_node(conn)
    insert_task(conn, "DONE", status="completed")
    insert_task(conn, "OPEN", depends_on=["nobody"])
    insert_task(conn, "FAILED", status="failed")
    insert_task(conn, "1", status="completed")
    insert_task(conn, "T1", **columns)
    assert placed(run(conn)) == (["T1"] if candidate else [])
    pending = columns.get("status", "pending") == "pending"
    why = explain(conn, "T1")
    assert set(why) == ({"T1"} if pending else set())
    assert not pending or (why["T1"].kind == "next_pass") == candidate


def test_rows_without_an_id_or_a_known_state_stop_nobody(conn: Connection) -> None:
    insert_node(conn, slots=9)
    insert_node(conn, None)
    insert_task(conn, None, priority=0)
    conn._conn.execute("PRAGMA ignore_check_constraints=1")
    insert_task(conn, "ODD", status="cancelled")
    insert_task(conn, "T1")
    insert_task(conn, "T2", depends_on=["ODD"])
    assert placed(run(conn)) == ["T1"]
    assert explain(conn, "T2", "ODD")["T2"].details == {"waits_for": {"ODD": "deadletter"}}


def test_a_priority_that_is_no_number_is_the_default(conn: Connection) -> None:
    insert_node(conn, slots=9)
    for id, priority in [("a", 3), ("b", "high"), ("c", None), ("d", 2), ("e", 0), ("f", 1.5)]:
        insert_task(conn, id, priority=priority)
    assert placed(run(conn)) == ["e", "f", "b", "c", "d", "a"]


def test_files_and_locks_are_held_within_their_project(conn: Connection) -> None:
    insert_node(conn, slots=9)
    insert_held(conn, "H", modifies=["a.py"])
    insert_held(conn, "L", status="failed")
    conn.execute("INSERT INTO file_locks VALUES ('b.py', 'L', 't'), ('c.py', 'nobody', 't')")
    insert_task(conn, "T1", modifies=["a.py"])
    insert_task(conn, "T2", modifies=["b.py"])
    insert_task(conn, "T3", modifies=["c.py"])
    insert_task(conn, "T4", modifies=["a.py", "b.py"], project="q")
    assert placed(run(conn)) == ["T3", "T4"]
    why = explain(conn, "T1", "T2")
    assert why["T1"].details == {"path": "a.py", "task": "H"}
    assert why["T2"].details == {"path": "b.py", "task": "L"}


def test_without_the_table_of_reputations_no_node_is_quarantined(conn: Connection) -> None:
    insert_node(conn)
    insert_task(conn)
    conn.execute("INSERT INTO node_reputation (node, quarantined) VALUES ('n1', 1)")
    assert placed(run(conn)) == []
    assert explain(conn, "T1")["T1"].details["nodes"] == {"n1": "quarantined: no reason given"}
    conn.execute("DROP TABLE node_reputation")
    conditions = Conditions(extras=Known(), alive=ALIVE)
    found = board.run_pass(conn, conditions, lambda _: Known(), NOW, reputation=False)
    assert placed(found) == ["T1"]


def test_what_is_known_of_a_spec_file_is_brought_up_to_date_before_it_is_judged(
    conn: Connection,
) -> None:
    insert_node(conn)
    insert_task(conn)
    asked: list[Sequence[str]] = []

    def refresh(spec_files: Sequence[str]) -> Mapping[str, SpecExtras]:
        asked.append(spec_files)
        return Known()

    found = board.run_pass(conn, Conditions({}, ALIVE), refresh, NOW, reputation=True)
    assert placed(found) == ["T1"]
    assert asked == [["/specs/p/T1.md"]]


def test_each_reason_on_demand(conn: Connection) -> None:
    insert_node(conn, slots=1)
    insert_held(conn, "H", modifies=["h.py"])
    rows: dict[str, dict[str, Any]] = {
        "dependencies": {"depends_on": ["H"]},
        "unknown_dependency": {"depends_on": ["nobody"]},
        "cycle": {"depends_on": ["cycle"]},
        "file_held": {"modifies": ["h.py"]},
        "no_slot": {},
        "no_executor": {},
        "spec_gone": {},
        "backoff": {"lease_owner": "backoff:00000000", "lease_expires_at": NOW + 60},
        "leased": {"lease_owner": "x", "lease_expires_at": NOW + 60},
        "paused": {"project": "q"},
    }
    for id, columns in rows.items():
        insert_task(conn, id, **columns)
    known = Known(spec_gone=None, no_executor="nobody")
    why = explain(conn, *rows, "H", "nobody", known=known, paused=frozenset({"q"}))
    assert {id: found.kind for id, found in why.items()} == {id: id for id in rows}


def test_only_what_the_next_pass_will_place_is_told_so(conn: Connection) -> None:
    insert_node(conn, slots=2)
    for n in range(5):
        insert_task(conn, f"T{n}", priority=5 - n)
    why = explain(conn, "T0", "T3", "T4")
    assert {id: found.kind for id, found in why.items()} == {
        "T0": "no_slot", "T3": "next_pass", "T4": "next_pass",
    }  # fmt: skip
    assert why["T4"].text == "will be placed on n1 by the next pass"


@st.composite
def rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    ids = [f"T{n}" for n in range(draw(st.integers(1, 8)))]
    broken = st.sampled_from([None, "", "oops", "[1]", '["T0"', "{}", "null"])
    parents = st.lists(st.sampled_from([*ids, "nobody"]), max_size=2)
    status = st.sampled_from(["pending"] * 4 + ["running", "completed", "failed", "deadletter"])
    return [
        {
            "id": id,
            "status": draw(status),
            "project": draw(st.sampled_from(["p", "q"])),
            "priority": draw(st.sampled_from([0, 1, None, "x"])),
            "depends_on": draw(parents | broken),
            "modifies": draw(st.sampled_from([["a"], ["b"], [], None, "oops"])),
            "node": draw(st.sampled_from(["n1", "n2", None])),
            "lease_owner": draw(st.sampled_from([None, "backoff:00000000"])),
            "lease_expires_at": draw(st.sampled_from([None, NOW, NOW + 60, "x"])),
        }
        for id in ids
    ]


@given(rows(), st.integers(0, 3), st.booleans())
def test_the_pass_and_the_explanation_agree(
    table: list[dict[str, Any]], slots: int, paused: bool
) -> None:
    conn = memory()
    insert_node(conn, "n1", slots=slots)
    insert_node(conn, "n2", slots=1, priority=0)
    for row in table:
        insert_task(conn, row.pop("id"), **row)
    ids = [row["id"] for row in conn.execute("SELECT id FROM tasks WHERE status = 'pending'")]
    known = Known(T1=None, T2="claude")
    fields: dict[str, Any] = {"paused": frozenset({"q"}) if paused else frozenset()}
    found = placed(run(conn, known, **fields))
    why = explain(conn, *ids, known=known, **fields)
    conn._conn.close()
    assert set(why) == set(ids)
    assert {id for id, reason in why.items() if reason.kind == "next_pass"} == set(found)
    for reason in why.values():
        assert isinstance(reason, Reason)
        json.dumps(dict(reason.details))
