"""What a worker knows of its tasks, and what it tells of them."""

from __future__ import annotations

from dataclasses import replace

from dispatch_controller.model import Observation, RunState, TaskRef
from dispatch_controller.worker.ledger import Ledger


def seen(lease: str = "n:1", state: RunState = RunState.RUNNING, **more: object) -> Observation:
    base = Observation(
        node="n", project="p", folder="T1", task_id="T1", lease=lease, attempt=1, state=state,
        alive=not state.final, started_at=100.0,
    )  # fmt: skip
    return replace(base, **more)  # type: ignore[arg-type]


ENDED = seen(state=RunState.COMPLETED, completed_at=200.0)


def test_what_lives_and_what_begins_takes_slots_and_an_end_does_not() -> None:
    ledger = Ledger(3)
    ledger.take([seen("n:1")])
    ledger.begin("n:2", 60)
    assert ledger.free == 1
    ledger.take([seen("n:2", task_id="T2")])
    ledger.begun("n:2")
    assert ledger.free == 1
    ledger.take([ENDED])
    assert ledger.free == 2
    ledger.begin("n:3", 60)
    ledger.begun("n:3")  # refused
    assert ledger.free == 2
    assert not ledger.knows("n:3")


def test_an_end_is_listed_until_it_is_reported() -> None:
    ledger = Ledger(1)
    ledger.begin("n:1", 60)
    ledger.take([seen()])
    (listed,) = ledger.listing(130.0)
    assert (listed["task_id"], listed["lease_owner"]) == ("T1", "n:1")
    assert (listed["elapsed"], listed["timeout"]) == (30.0, 60)
    assert listed["task"]["status"]["status"] == "running"
    ledger.take([ENDED])
    (listed,) = ledger.listing(230.0)
    assert listed["task"] is None  # a heartbeat only keeps its lease; the report tells its end
    assert ledger.listing(230.0, ends=True)[0]["task"]["status"]["status"] == "completed"
    assert [end.lease for end in ledger.unreported()] == ["n:1"]
    ledger.settle("n:1")
    assert (ledger.listing(230.0), ledger.unreported()) == ([], [])
    assert ledger.knows("n:1")  # handed out once more, it is not started


def test_what_is_settled_is_acknowledged_again_while_it_is_told() -> None:
    ledger = Ledger(1)
    ledger.take([ENDED])
    ledger.settle("n:1")
    ledger.take([ENDED])
    assert ledger.unreported() == []
    assert ledger.take_all([ENDED], set()) == [TaskRef("p", "T1", "n:1")]
    assert ledger.take_all([], set()) == []
    assert not ledger.knows("n:1")


def test_a_collection_ends_what_it_does_not_tell_but_not_what_began_meanwhile() -> None:
    ledger = Ledger(3)
    ledger.take([seen("n:1"), seen("n:2", folder="T2", task_id="T2")])
    before = ledger.leases()
    ledger.take([seen("n:3", folder="T3", task_id="T3")])
    unreadable = seen(state=RunState.UNKNOWN, folder="T2", task_id=None)
    ledger.take_all([replace(unreadable, lease=None, alive=True)], before)
    assert ledger.leases() == {"n:2", "n:3"}


def test_an_end_is_never_taken_for_running_again() -> None:
    ledger = Ledger(1)
    ledger.take([ENDED, seen()])
    assert [end.state for end in ledger.unreported()] == [RunState.COMPLETED]
