"""The worker transport against a worker as they are in the field, and against what polls said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import trio

from dispatch_controller.fleet.http import MOST_ANSWER, new_client, worker_token
from dispatch_controller.fleet.listing import RunningTask
from dispatch_controller.fleet.transport import NodeUnfit, TransportLost
from dispatch_controller.fleet.worker import (
    PATIENCE,
    SETTLED,
    WorkerLimits,
    WorkerTransport,
)
from dispatch_controller.loops.workers import Message, WorkerRegistry
from dispatch_controller.model import (
    Adopted,
    KillOutcome,
    Refused,
    RunState,
    Started,
    TaskRef,
    Unknown,
    Voided,
)
from tests.fleet.old_worker import OldWorker
from tests.fleet.orders import an_order, ref_of


@dataclass
class Hands:
    """A clock that a test sets."""

    now: float = 1_800_000_000.0

    def wall(self) -> float:
        return self.now


@dataclass
class Field:
    """A worker in the field, and the way to it."""

    worker: OldWorker
    transport: WorkerTransport
    registry: WorkerRegistry
    clock: Hands

    def polled(self, *running: RunningTask) -> None:
        """The worker polls: from now on it is never pushed to."""
        self.registry.heard(
            Message("n", "10.0.0.1", self.clock.now, running_tasks=running, poll=True)
        )


@pytest.fixture
async def field() -> AsyncIterator[Field]:
    clock, registry = Hands(), WorkerRegistry()
    async with OldWorker().serving() as worker, new_client() as client:
        registry.configured = {"n": worker.url}
        transport = WorkerTransport(
            "n", "~/dispatch", registry, client, clock, worker_token("secret", "n"),
            WorkerLimits(execute=2.0, request=2.0),
        )  # fmt: skip
        yield Field(worker, transport, registry, clock)


async def test_execute_has_the_fields_that_workers_know(field: Field) -> None:
    order = an_order()
    outcome = await field.transport.start(order)
    assert isinstance(outcome, Started)
    assert (outcome.observation.state, outcome.observation.lease) == (
        RunState.RUNNING, order.lease,
    )  # fmt: skip
    (body,) = field.worker.called("execute")
    assert body.keys() >= {
        "task_id", "command", "timeout", "cwd", "env", "lease_owner", "spec_content",
        "setup_commands",
    }  # fmt: skip
    assert field.worker.headers["authorization"] == f"Bearer {worker_token('secret', 'n')}"
    assert "secret" not in str(field.worker.headers)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((429, {"error": "busy"}), "no_slot"),
        ((400, {"error": "bad"}), "bad_order"),
        ((413, ""), "bad_order"),
        ((401, {"error": "who?"}), "unauthorized"),
        ((409, {"reason": "disk_full", "error": "98 %"}), "disk_full"),
    ],
)
async def test_a_clear_no_is_a_refusal(
    field: Field, answer: tuple[int, object], reason: str
) -> None:
    field.worker.answers["execute"] = answer
    outcome = await field.transport.start(an_order())
    assert isinstance(outcome, Refused)
    assert outcome.reason == reason


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"status": "QUEUED"}),
        (200, "not json"),
        (200, "[" * 100_000),
        (200, "x" * (MOST_ANSWER + 1)),
        (307, ""),
        (500, {"error": "oops"}),
        (503, ""),
        (418, "[1]"),
    ],
    ids=["another word", "no json", "nested", "endless", "redirect", "500", "503", "418"],
)
async def test_anything_unclear_is_unknown(field: Field, answer: tuple[int, object]) -> None:
    field.worker.answers["execute"] = answer
    assert isinstance(await field.transport.start(an_order()), Unknown)
    assert len(field.worker.calls) == 1


async def test_no_answer_is_unknown_and_no_connection_a_refusal(field: Field) -> None:
    field.worker.silent.add("execute")
    assert isinstance(await field.transport.start(an_order()), Unknown)
    field.registry.configured = {"n": "http://127.0.0.1:1"}
    outcome = await field.transport.start(an_order(sequence=2))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "unreachable"
    assert field.transport.traffic.take()[1] == 2


async def test_a_worker_not_heard_of_is_not_reached(field: Field) -> None:
    field.registry.configured = {}
    outcome = await field.transport.start(an_order())
    assert isinstance(outcome, Refused)
    with pytest.raises(TransportLost, match="not been heard of"):
        await field.transport.collect()


# --- what settles a start there


async def test_a_start_that_is_listed_is_adopted(field: Field) -> None:
    order = an_order()
    await field.transport.start(order)
    outcome = await field.transport.void(ref_of(order))
    assert isinstance(outcome, Adopted)
    assert (outcome.observation.project, outcome.observation.lease) == ("p", order.lease)


async def test_a_start_that_is_not_listed_is_void_once_it_could_have_begun(field: Field) -> None:
    order = an_order()
    field.worker.answers["execute"] = (500, "")
    await field.transport.start(order)
    with pytest.raises(TransportLost, match="may still be started"):
        await field.transport.void(ref_of(order))
    field.clock.now += SETTLED - 1
    with pytest.raises(TransportLost):
        await field.transport.void(ref_of(order))
    assert field.worker.called("kill") == []
    field.clock.now += 1
    assert isinstance(await field.transport.void(ref_of(order)), Voided)
    assert [body["task_id"] for body in field.worker.called("kill")] == ["T1"]


async def test_after_a_restart_the_time_counts_from_the_first_question(field: Field) -> None:
    ref = TaskRef("p", "T9", "n:9")
    with pytest.raises(TransportLost):
        await field.transport.void(ref)
    field.clock.now += SETTLED
    assert isinstance(await field.transport.void(ref), Voided)


async def test_a_worker_that_does_not_answer_settles_nothing(field: Field) -> None:
    order = an_order()
    field.worker.answers["execute"] = (500, "")
    await field.transport.start(order)
    field.clock.now += 10 * SETTLED
    for answer in ((500, ""), (200, "no json"), (200, {"status": "OK"}), (302, "")):
        field.worker.answers["status"] = answer
        with pytest.raises(TransportLost):
            await field.transport.void(ref_of(order))
    field.worker.answers["status"] = (200, {"running_tasks": [{"elapsed": 1}]})
    with pytest.raises(TransportLost, match="without its id"):
        await field.transport.void(ref_of(order))


# --- collecting and ending


@pytest.mark.parametrize(
    "body",
    [
        {"running_tasks": [{"task_id": "T1", "lease_owner": "n:1"}]},
        {"tasks": {"T1": {"lease_owner": "n:1", "elapsed": 5}}},
        {"running": ["T1"]},
    ],
)
async def test_a_listing_is_read_in_any_usual_form(field: Field, body: dict[str, object]) -> None:
    field.worker.answers["status"] = (200, body)
    (seen,) = (await field.transport.collect()).tasks
    assert (seen.task_id, seen.state, seen.alive) == ("T1", RunState.RUNNING, True)
    assert seen.lease in ("n:1", None)


async def test_a_task_is_ended_by_its_id(field: Field) -> None:
    order = an_order()
    await field.transport.start(order)
    other = TaskRef("p", "T1", "n:ffffffff")
    assert await field.transport.kill(other, 1.0) is KillOutcome.OTHER_LEASE
    assert field.worker.running
    assert await field.transport.kill(ref_of(order), 1.0) is KillOutcome.ENDING
    assert not field.worker.running
    assert await field.transport.kill(ref_of(order), 1.0) is KillOutcome.GONE


async def test_health_is_a_probe_and_a_closed_door_says_how_to_open_it(field: Field) -> None:
    probe = await field.transport.probe()
    assert (probe.node, probe.at, probe.wrapper) == ("n", field.clock.now, None)
    field.worker.answers["health"] = (401, {"error": "token?"})
    with pytest.raises(NodeUnfit, match="controller's own token"):
        await field.transport.probe()


async def test_logs_and_clean_up_say_that_they_are_not_there(field: Field) -> None:
    with pytest.raises(TransportLost, match="serves no logs"):
        await field.transport.read_log("p", "T1", 0, 10)
    with pytest.raises(TransportLost, match="keeps its own folders"):
        await field.transport.cleanup([("p", "T1")])
    field.polled()
    with pytest.raises(TransportLost, match="the log is on that machine"):
        await field.transport.read_log("p", "T1", 0, 10)


# --- a worker that polls


async def test_a_worker_that_polls_is_never_called(field: Field) -> None:
    field.polled(RunningTask("T1", "n:1"))
    (seen,) = (await field.transport.collect()).tasks
    assert (seen.task_id, seen.lease, seen.alive) == ("T1", "n:1", True)
    assert (await field.transport.probe()).at == field.clock.now
    ref = TaskRef("p", "T1", "n:1")
    assert isinstance(await field.transport.void(ref), Adopted)
    assert await field.transport.kill(ref, 1.0) is KillOutcome.ENDING
    assert await field.transport.kill(TaskRef("p", "T2", "n:2"), 1.0) is KillOutcome.GONE
    assert field.worker.calls == []


async def test_an_old_word_of_a_worker_that_polls_says_nothing(field: Field) -> None:
    field.polled(RunningTask("T1", "n:1"))
    field.registry.configured = {"n": "poll"}
    field.clock.now += 61
    for call in (
        field.transport.collect(), field.transport.probe(),
        field.transport.void(TaskRef("p", "T1", "n:1")),
        field.transport.kill(TaskRef("p", "T1", "n:1"), 1.0),
    ):  # fmt: skip
        with pytest.raises(TransportLost, match="has not said"):
            await call
    # A heartbeat that does not list anything makes the old list no younger.
    field.registry.heard(Message("n", "10.0.0.1", field.clock.now))
    with pytest.raises(TransportLost, match="has not said"):
        await field.transport.collect()


async def test_a_claim_that_nobody_fetches_is_taken_back(field: Field) -> None:
    """Nobody has it, so that no word of the worker is needed."""
    ref = TaskRef("p", "T1", "n:1")
    field.polled()
    field.registry.offer("n:1", field.clock.now)
    with pytest.raises(TransportLost, match="waits to be fetched"):
        await field.transport.void(ref)
    field.registry.configured = {"n": "poll"}
    field.clock.now += 2 * PATIENCE
    assert isinstance(await field.transport.void(ref), Voided)
    assert not field.registry.hand("n:1", field.clock.now)


async def test_a_claim_of_an_earlier_process_may_have_been_fetched(field: Field) -> None:
    ref = TaskRef("p", "T1", "n:1")
    field.polled()
    with pytest.raises(TransportLost):
        await field.transport.void(ref)
    field.clock.now += PATIENCE
    field.polled()
    with pytest.raises(TransportLost, match="may still be started"):
        await field.transport.void(ref)
    field.clock.now += 1
    field.polled()
    assert isinstance(await field.transport.void(ref), Voided)


async def test_a_claim_that_was_fetched_is_void_only_after_it_could_have_begun(
    field: Field,
) -> None:
    ref = TaskRef("p", "T1", "n:1")
    field.polled()
    with pytest.raises(TransportLost):
        await field.transport.void(ref)
    field.clock.now += PATIENCE
    assert field.registry.hand("n:1", field.clock.now)
    field.polled()
    with pytest.raises(TransportLost, match="may still be started"):
        await field.transport.void(ref)
    field.clock.now += SETTLED
    field.polled()  # the last word is not late enough: a start may have crossed it
    with pytest.raises(TransportLost, match="may still be started"):
        await field.transport.void(ref)
    field.clock.now += 1
    field.polled()
    assert isinstance(await field.transport.void(ref), Voided)


async def test_cancelling_a_call_ends_it_at_once(field: Field) -> None:
    field.worker.silent.add("status")
    with trio.move_on_after(0.1) as scope:
        await field.transport.collect()
    assert scope.cancelled_caught
