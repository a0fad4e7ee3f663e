"""Nodes with a `task-wrapper.sh` of their own: framing, tokens, and what old wrappers leave."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio

from dispatch_controller.fleet.local import LocalMachine
from dispatch_controller.fleet.polled import PolledTransport
from dispatch_controller.fleet.polled_listing import parse_listing
from dispatch_controller.fleet.transport import Completed, TransportLost
from dispatch_controller.model import (
    Adopted,
    KillOutcome,
    Observation,
    Refused,
    RunState,
    Started,
    TaskRef,
    Unknown,
    Voided,
)
from dispatch_controller.runtime.clock import SystemClock
from tests.fleet.orders import RUN, an_order, ref_of

OWNER = "0123456789abcdef"

# An old wrapper in small: no lease in its status, local times, a pid file.
WRAPPER = r"""#!/bin/sh
d=$(dirname "$3")
echo $$ > "$d/pid"
status() {
    printf '{"status":"%s","pid":%s,"exit_code":%s}' "$1" $$ "$2" > "$d/s"
    mv "$d/s" "$d/status.json"
}
status running null
date -u +%Y-%m-%dT%H:%M:%SZ > "$d/heartbeat"
echo "$1 $2 $API_MODE $LEASE $ATTEMPT $TASK_TIMEOUT_SECS" > "$d/task.log"
case $(cat "$3") in
    *hang*) exec sleep 300 ;;
    *fail*) status failed 3 ;;
    *) status completed 0 ;;
esac
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "a root"
    root.mkdir()
    return root


@pytest.fixture
def wrapper(tmp_path: Path) -> Path:
    wrapper = tmp_path / "task-wrapper.sh"
    wrapper.write_text(WRAPPER)
    wrapper.chmod(0o755)
    return wrapper


@pytest.fixture
def polled(root: Path, wrapper: Path) -> PolledTransport:
    return PolledTransport(LocalMachine("n"), str(root), OWNER, str(wrapper), SystemClock())


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "300"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


async def _ended(polled: PolledTransport) -> Observation:
    with trio.fail_after(20):
        while True:
            for seen in (await polled.collect()).tasks:
                if seen.state.final and not seen.alive:
                    return seen


async def test_old_wrapper_gets_its_arguments_and_environment(
    polled: PolledTransport, root: Path
) -> None:
    outcome = await polled.start(an_order("T1", spec="quick", timeout=77))
    assert isinstance(outcome, Started)
    seen = await _ended(polled)
    assert (seen.lease, seen.attempt, seen.exit_code) == (f"{RUN}:00000001", 1, 0)
    assert seen.heartbeat_at is not None
    assert seen.log_size is not None
    log = await polled.read_log("p", "T1", 0, 1000)
    assert log.text == f"p T1 direct {RUN}:00000001 1 77\n"
    assert (root / "p/tasks/T1/spec.md").read_text() == "quick"


async def test_failing_task_is_read_from_the_old_status(polled: PolledTransport) -> None:
    await polled.start(an_order("T1", spec="fail"))
    seen = await _ended(polled)
    assert (seen.state, seen.exit_code) == (RunState.FAILED, 3)


async def test_task_runs_in_a_session_of_its_own(polled: PolledTransport) -> None:
    outcome = await polled.start(an_order("T1", spec="hang"))
    assert isinstance(outcome, Started)
    pid = outcome.observation.pid
    assert pid is not None
    assert os.getsid(pid) == pid
    assert await polled.kill(ref_of(an_order("T1")), 0.1) is KillOutcome.ENDING
    with trio.fail_after(10):
        while any(seen.alive for seen in (await polled.collect()).tasks):
            pass


async def test_killed_old_wrapper_is_running_and_not_alive(polled: PolledTransport) -> None:
    await polled.start(an_order("T1", spec="hang"))
    with trio.fail_after(10):
        while (await polled.collect()).tasks[0].state is not RunState.RUNNING:
            pass
    await polled.kill(ref_of(an_order("T1")), 0.0)
    with trio.fail_after(10):
        while (await polled.collect()).tasks[0].alive:
            pass
    (seen,) = (await polled.collect()).tasks
    assert (seen.state, seen.alive) == (RunState.RUNNING, False)


async def test_status_of_an_earlier_attempt_is_not_taken_for_this_one(
    polled: PolledTransport, root: Path
) -> None:
    folder = root / "p" / "tasks" / "T1"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text('{"status":"completed"}')
    await polled.start(an_order("T1", spec="hang", sequence=2))
    (seen,) = (await polled.collect()).tasks
    assert seen.lease == f"{RUN}:00000002"
    assert seen.state in (RunState.PENDING, RunState.RUNNING)
    await polled.kill(TaskRef("p", "T1", f"{RUN}:00000002"), 0.0)


async def test_task_of_an_older_controller_is_found_and_blocks_a_second_start(
    polled: PolledTransport, root: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    folder = root / "p" / "tasks" / "old"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text('{"status":"running"}')
    (folder / "pid").write_text(f"{sleeper.pid}\n")
    (seen,) = (await polled.collect()).tasks
    assert (seen.folder, seen.lease, seen.state) == ("old", None, RunState.RUNNING)
    assert seen.alive
    refused = await polled.start(an_order("old", spec="quick"))
    assert isinstance(refused, Refused)
    assert refused.reason == "alive"


async def test_task_of_an_older_controller_can_be_acknowledged(
    polled: PolledTransport, root: Path
) -> None:
    folder = root / "p" / "tasks" / "old"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text('{"status":"completed"}')
    assert len((await polled.collect()).tasks) == 1
    await polled.ack([TaskRef("p", "old", "n:1")])
    assert (await polled.collect()).tasks == ()


async def test_broken_and_empty_status_are_unknown(polled: PolledTransport, root: Path) -> None:
    for name, text in {"half": '{"status":"comp', "none": "", "list": "[1]"}.items():
        folder = root / "p" / "tasks" / name
        folder.mkdir(parents=True)
        (folder / "status.json").write_text(text)
    states = {seen.folder: seen.state for seen in (await polled.collect()).tasks}
    assert states == dict.fromkeys(["half", "none", "list"], RunState.UNKNOWN)


async def test_nothing_in_a_file_can_look_like_a_line_of_ours(
    polled: PolledTransport, root: Path
) -> None:
    folder = root / "p" / "tasks" / "evil"
    folder.mkdir(parents=True)
    lines = '{"status":\n"completed"}\n'
    (folder / "status.json").write_text(lines)
    (folder / "heartbeat").write_text(
        f"@end\nfile ./.dispatch/{OWNER}/polled/p/ghost/current\n|start L 1 1 1\nnow 7\nprocess x"
    )
    (seen,) = (await polled.collect()).tasks
    assert (seen.folder, seen.state) == ("evil", RunState.COMPLETED)


async def test_tasks_of_another_home_are_not_told(polled: PolledTransport, root: Path) -> None:
    await polled.start(an_order("T1", spec="quick"))
    await _ended(polled)
    other = PolledTransport(LocalMachine("n"), str(root), "f" * 16, polled._wrapper, SystemClock())
    assert [seen.lease for seen in (await other.collect()).tasks] in ([], [None])


async def test_wrapper_that_is_missing_is_refused_and_spends_no_lease(
    root: Path, wrapper: Path
) -> None:
    lost = PolledTransport(LocalMachine("n"), str(root), OWNER, "/no/such", SystemClock())
    refused = await lost.start(an_order("T1"))
    assert isinstance(refused, Refused)
    assert refused.reason == "wrapper_error"
    found = PolledTransport(LocalMachine("n"), str(root), OWNER, str(wrapper), SystemClock())
    assert isinstance(await found.start(an_order("T1", spec="quick")), Started)


class Cut(LocalMachine):
    """Loses parts of what goes in and out, as a connection that dies does."""

    def __init__(self, node: str, *, keep_in: int | None = None, keep_out: int | None) -> None:
        super().__init__(node)
        self.keep_in = keep_in
        self.keep_out = keep_out

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Completed:
        done = await super().run(argv, stdin=stdin[: self.keep_in], timeout=timeout)
        return Completed(done.exit_status, done.stdout[: self.keep_out], done.stderr)


@pytest.mark.parametrize("keep", [0, 10, -1])
async def test_answer_without_its_closing_line_is_no_answer(
    root: Path, wrapper: Path, keep: int
) -> None:
    cut = PolledTransport(Cut("n", keep_out=keep), str(root), OWNER, str(wrapper), SystemClock())
    with pytest.raises(TransportLost, match="incomplete"):
        await cut.collect()
    assert isinstance(await cut.start(an_order("T1", spec="quick")), Unknown)
    whole = PolledTransport(LocalMachine("n"), str(root), OWNER, str(wrapper), SystemClock())
    assert isinstance(await whole.void(ref_of(an_order("T1"))), Adopted)


async def test_spec_cut_short_on_its_way_is_not_started(root: Path, wrapper: Path) -> None:
    cut = PolledTransport(
        Cut("n", keep_in=3, keep_out=None), str(root), OWNER, str(wrapper), SystemClock()
    )
    outcome = await cut.start(an_order("T1", spec="quick and long"))
    assert isinstance(outcome, Unknown)
    assert "3 of 14 bytes" in outcome.message
    assert isinstance(await cut.void(ref_of(an_order("T1"))), Voided)


async def test_missing_work_dir_says_nothing_of_any_task(tmp_path: Path, wrapper: Path) -> None:
    polled = PolledTransport(
        LocalMachine("n"), str(tmp_path / "unmounted"), OWNER, str(wrapper), SystemClock()
    )
    with pytest.raises(TransportLost, match="unmounted"):
        await polled.collect()


async def test_link_is_not_read(polled: PolledTransport, root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = root / "p" / "tasks" / "T1"
    folder.mkdir(parents=True)
    (folder / "task.log").symlink_to(tmp_path / "secret")
    with pytest.raises(TransportLost, match="link"):
        await polled.read_log("p", "T1", 0, 100)
    for project, name in (("..", "task.log"), ("p", "../../x"), ("p/tasks", "task.log")):
        with pytest.raises(TransportLost, match="name of a file"):
            await polled.read_log(project, "T1", 0, 100, name)


def test_pid_that_is_anothers_by_now_is_not_alive() -> None:
    text = (
        "now 1763970000\n"
        "file ./.dispatch/o/polled/p/T1/current\n"
        "|start n:1 1 5 4711\n"
        "|Mon Nov 24 07:00:00 2025\n"
        "process 4711 4711 Ss 00:01:02 Mon Nov 24 08:00:00 2025\n"
    )
    (task,) = parse_listing(text).tasks()
    assert task["alive"] is False
    same = text.replace("08:00:00", "07:00:02")
    (task,) = parse_listing(same).tasks()
    assert (task["alive"], task["cpu"]) == (True, 62.0)


def test_listing_without_processes_is_refused() -> None:
    with pytest.raises(ValueError, match="process"):
        parse_listing("now 1\n")
