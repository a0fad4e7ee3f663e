"""The controller's end of a `serve` channel, against one that misbehaves on request."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from dispatch_controller.fleet.bundle import Bundle
from dispatch_controller.fleet.local import LocalMachine
from dispatch_controller.fleet.serve import ServeLimits, ServeTransport
from dispatch_controller.fleet.ssh import SshMachine, SshService
from dispatch_controller.fleet.transport import LineChannel, Machine, NodeUnfit, TransportLost
from dispatch_controller.model import Observation, RunState, Started, Unknown
from dispatch_controller.runtime.clock import SystemClock
from tests.fleet.orders import an_order
from tests.sshd import SshFleet

_TEXT = (Path(__file__).parent / "scripted_serve.py").read_bytes()
SCRIPT = Bundle(_TEXT, hashlib.sha256(_TEXT).hexdigest())
LIMITS = ServeLimits(request=5.0, start=5.0, first_retry=0.05, unfit_retry=0.2)


@dataclass
class Told:
    """What was reported unasked."""

    seen: list[Observation] = field(default_factory=list)
    event: trio.Event = field(default_factory=trio.Event)

    def __call__(self, news: Sequence[Observation]) -> None:
        self.seen.extend(news)
        if news:
            self.event.set()


def serving(
    machine: Machine, root: Path | str, told: Told | None = None, limits: ServeLimits = LIMITS
) -> ServeTransport:
    return ServeTransport(
        machine, str(root), "0" * 16, SCRIPT, told or Told(), SystemClock(), limits
    )


@pytest.fixture
async def local(tmp_path: Path, nursery: trio.Nursery) -> ServeTransport:
    transport = serving(LocalMachine("n"), tmp_path / "root")
    await nursery.start(transport.run)
    return transport


async def test_brings_the_wrapper_where_it_is_missing_and_only_there(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    root = tmp_path / "root"
    first = serving(LocalMachine("n"), root)
    await nursery.start(first.run)
    await first.collect()
    (file,) = (root / ".dispatch").iterdir()
    assert file.name == SCRIPT.name
    placed = file.stat().st_ino
    second = serving(LocalMachine("n"), root)
    await nursery.start(second.run)
    await second.collect()
    assert file.stat().st_ino == placed


async def test_replaces_a_wrapper_that_is_not_what_its_name_says(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    file = tmp_path / "root" / ".dispatch" / SCRIPT.name
    file.parent.mkdir(parents=True)
    file.write_bytes(SCRIPT.content + b"\n# tampered\n")
    transport = serving(LocalMachine("n"), tmp_path / "root")
    await nursery.start(transport.run)
    await transport.collect()
    assert file.read_bytes() == SCRIPT.content


async def test_replies_find_their_requests_in_any_order(local: ServeTransport) -> None:
    outcomes = {}

    async def start(folder: str, spec: str) -> None:
        outcomes[folder] = await local.start(an_order(folder, spec=spec))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(start, f"T{number}", "reversed")
        while len(_lines(local)) < 20:
            await trio.lowlevel.checkpoint()
        nursery.start_soon(start, "last", "reversed, last")
    for folder, outcome in outcomes.items():
        assert isinstance(outcome, Started)
        assert outcome.observation.folder == folder


async def test_silence_is_unknown_and_others_go_on(tmp_path: Path, nursery: trio.Nursery) -> None:
    transport = serving(
        LocalMachine("n"), tmp_path / "root", limits=ServeLimits(start=0.3, first_retry=0.05)
    )
    await nursery.start(transport.run)
    await transport.collect()
    outcome = await transport.start(an_order("T1", spec="silence"))
    assert isinstance(outcome, Unknown)
    assert "0.3 s" in outcome.message
    assert isinstance(await transport.start(an_order("T2")), Started)


@pytest.mark.parametrize("spec", ["error", "nonsense", "die"])
async def test_answer_that_says_nothing_of_the_process_is_unknown(
    local: ServeTransport, spec: str
) -> None:
    assert isinstance(await local.start(an_order("T1", spec=spec)), Unknown)
    await _answers(local)
    assert isinstance(await local.start(an_order("T2")), Started)


@pytest.mark.parametrize("spec", ["noise", "twice", "mutters"])
async def test_noise_between_the_lines_disturbs_nothing(local: ServeTransport, spec: str) -> None:
    for number in range(3):
        assert isinstance(await local.start(an_order(f"T{number}", spec=spec)), Started)


async def test_reports_what_it_is_told_unasked(tmp_path: Path, nursery: trio.Nursery) -> None:
    told = Told()
    transport = serving(LocalMachine("n"), tmp_path / "root", told)
    await nursery.start(transport.run)
    await transport.start(an_order("T1", spec="ends"))
    with trio.fail_after(5):
        await told.event.wait()
    assert [(seen.folder, seen.state) for seen in told.seen] == [("T1", RunState.COMPLETED)]


async def test_times_are_told_by_our_clock(local: ServeTransport) -> None:
    await local.collect()
    assert local._offset == pytest.approx(-3600, abs=5)
    outcome = await local.start(an_order())
    assert isinstance(outcome, Started)
    started = outcome.observation.started_at
    assert started is not None
    assert started - SystemClock().wall() == pytest.approx(-3600, abs=5)


async def test_comes_back_by_itself_when_serve_is_killed(local: ServeTransport) -> None:
    await local.collect()
    for _ in range(3):
        os.kill(_pid(local), signal.SIGKILL)
        await _answers(local)


async def test_requests_fail_at_once_while_the_node_is_away(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder can be made here")
    transport = serving(
        LocalMachine("n"), blocked / "root", limits=ServeLimits(request=30, first_retry=30)
    )
    await nursery.start(transport.run)
    with pytest.raises(TransportLost, match="could not write"):
        await transport.collect()
    with trio.fail_after(1), pytest.raises(TransportLost, match="could not write"):
        await transport.collect()
    blocked.unlink()
    transport.reconnect()
    await _answers(transport)


async def test_request_given_up_before_it_was_sent_is_taken_back(local: ServeTransport) -> None:
    await local.collect()
    os.kill(_pid(local), signal.SIGSTOP)
    big = "x" * 4_000_000  # more than every buffer in between
    with trio.move_on_after(0.5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(local.start, an_order("big", spec=big))
            await trio.testing.wait_all_tasks_blocked(0.1)
            nursery.start_soon(local.start, an_order("never"))
    os.kill(_pid(local), signal.SIGCONT)
    assert isinstance(await local.start(an_order("after")), Started)
    assert b'"never"' not in b"".join(_lines(local))


async def test_hundred_and_forty_starts_do_not_wait_for_each_other(
    local: ServeTransport,
) -> None:
    await local.collect()
    started = trio.current_time()
    outcomes = []

    async def start(number: int) -> None:
        outcomes.append(await local.start(an_order(f"T{number}", spec="x" * 20_000)))

    async with trio.open_nursery() as nursery:
        for number in range(140):
            nursery.start_soon(start, number)
    assert all(isinstance(outcome, Started) for outcome in outcomes)
    assert trio.current_time() - started < 3


async def test_stopped_transport_answers_at_once(tmp_path: Path) -> None:
    transport = serving(LocalMachine("n"), tmp_path / "root")
    async with trio.open_nursery() as nursery:
        await nursery.start(transport.run)
        await transport.collect()
        nursery.cancel_scope.cancel()
    with trio.fail_after(1), pytest.raises(TransportLost):
        await transport.collect()


async def test_no_python_is_told_in_words(tmp_path: Path, nursery: trio.Nursery) -> None:
    transport = serving(_with_path(tmp_path, None), tmp_path / "root")
    await nursery.start(transport.run)
    with pytest.raises(NodeUnfit, match="no python3"):
        await transport.collect()


async def test_old_python_is_told_with_its_version(tmp_path: Path, nursery: trio.Nursery) -> None:
    transport = serving(_with_path(tmp_path, "echo 3.6.8; exit 1"), tmp_path / "root")
    await nursery.start(transport.run)
    with pytest.raises(NodeUnfit, match=r"3\.6\.8"):
        await transport.collect()


async def test_over_ssh_a_banner_does_not_disturb(
    ssh_fleet: SshFleet, ssh_service: SshService, nursery: trio.Nursery
) -> None:
    node = ssh_fleet.add("alpha")
    (node.home / ".bashrc").write_text('echo "Welcome! {not json"\necho \'{"motd": 1}\'\n')
    machine = SshMachine(ssh_service, "alpha", "alpha")
    transport = serving(machine, "~/dispatch")
    await nursery.start(transport.run)
    assert isinstance(await transport.start(an_order()), Started)
    assert (node.home / "dispatch" / "serve.pid").exists()


async def test_over_ssh_it_survives_a_killed_sshd(
    ssh_fleet: SshFleet, ssh_service: SshService, nursery: trio.Nursery
) -> None:
    node = ssh_fleet.add("alpha")
    transport = serving(SshMachine(ssh_service, "alpha", "alpha"), "~/dispatch")
    await nursery.start(transport.run)
    await transport.collect()
    node.kill_sessions()
    await _answers(transport)


async def test_over_ssh_a_channel_that_hangs_is_a_lost_answer(
    ssh_fleet: SshFleet, ssh_service: SshService, nursery: trio.Nursery
) -> None:
    node = ssh_fleet.add("alpha")
    transport = serving(
        SshMachine(ssh_service, "alpha", "alpha"),
        "~/dispatch",
        limits=ServeLimits(request=0.5, start=0.5, first_retry=0.05),
    )
    await nursery.start(transport.run)
    await _answers(transport)
    pid = int((node.home / "dispatch" / "serve.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(TransportLost, match="no answer to collect"):
        await transport.collect()
    assert isinstance(await transport.start(an_order()), Unknown)
    os.kill(pid, signal.SIGCONT)
    assert isinstance(await transport.start(an_order("T2")), Started)


async def _answers(transport: ServeTransport) -> None:
    """Wait until the node answers again."""
    with trio.fail_after(10):
        while True:
            try:
                await transport.collect()
            except TransportLost:
                await trio.lowlevel.checkpoint()
            else:
                return


def _with_path(tmp_path: Path, python: str | None) -> Machine:
    """A machine with only the basic tools, and `python` as its python3."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "cat", "mkdir", "dirname", "wc", "mv", "rm"):
        for place in ("/bin", "/usr/bin"):
            if (Path(place) / name).exists() and not (tools / name).exists():
                (tools / name).symlink_to(Path(place) / name)
    if python is not None:
        (tools / "python3").write_text(f"#!/bin/sh\n{python}\n")
        (tools / "python3").chmod(0o755)

    class Bare(LocalMachine):
        async def open(self, argv: Sequence[str]) -> LineChannel:
            return await super().open(["/usr/bin/env", f"PATH={tools}", *argv])

    return Bare("n")


def _pid(transport: ServeTransport) -> int:
    return int((Path(transport._root) / "serve.pid").read_text())


def _lines(transport: ServeTransport) -> list[bytes]:
    try:
        lines = (Path(transport._root) / "lines").read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [line for line in lines if b'"start"' in line]
