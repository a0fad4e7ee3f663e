"""What happens to the machines of a simulation, and between them and the controller."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import trio

from dispatch_controller.model import Observation, RunState
from tests.fakes import FakeNode, Fault
from tests.loops.world import World

HOUR = 3600.0
COMMAND_TIMEOUT = 30.0
"""After so long a way to a node gives up on a request that hangs."""

CALM = 0.004
"""Share of requests that go wrong on a good day."""


@dataclass(slots=True)
class Weather:
    """The faults of one machine: a little always, much in an episode."""

    rng: random.Random
    share: float = CALM
    hangs: bool = False

    def fault(self, method: str) -> Fault | None:
        """Draw what goes wrong with one request; nothing does in most."""
        rng = self.rng
        if self.hangs:
            return Fault(delay=COMMAND_TIMEOUT, lost_before=True)
        if rng.random() >= self.share:
            return None
        faults = [
            Fault(lost_before=True),
            Fault(lost_after=True),
            Fault(delay=rng.uniform(0.1, 29.0)),
            Fault(reply_delay=rng.uniform(0.1, 29.0)),
            Fault(delay=rng.uniform(0.1, 20.0), lost_after=True),
        ]
        if method == "start":
            refusal = rng.choice(["disk_full", "wrapper_error", "superseded"])
            faults += [Fault(in_pipe=rng.uniform(1.0, 900.0)), Fault(refuse=refusal)] * 2
        return rng.choice(faults)


Episode = Callable[["Machine"], Iterator[None]]


class Machine:
    """One node, and what befalls it."""

    def __init__(self, world: World, node: FakeNode, rng: random.Random) -> None:
        self.world = world
        self.node = node
        self.rng = rng
        self.weather = Weather(rng)
        node.choose_fault = self.weather.fault
        self.past: list[Observation] = []
        """Final states it once told: what it lies with."""

    async def live(self, gap: float) -> None:
        """Go through episodes, `gap` seconds apart in the mean, until cancelled."""
        while True:
            await trio.sleep(self.rng.expovariate(1 / gap))
            episode = self.rng.choice(EPISODES)
            with contextmanager(episode)(self):
                self.node.changed()
                await trio.sleep(self.rng.choice([60.0, 300.0, 900.0, 2 * HOUR]))
            self.node.changed()

    def mend(self) -> None:
        """A good day from now on."""
        self.weather.share = 0.0
        self.node.changed()


def cut_off(machine: Machine) -> Iterator[None]:
    machine.node.up = False
    try:
        yield
    finally:
        machine.node.up = True


def hang(machine: Machine) -> Iterator[None]:
    machine.weather.hangs = machine.node.mute = True
    try:
        yield
    finally:
        machine.weather.hangs = machine.node.mute = False


def bad_line(machine: Machine) -> Iterator[None]:
    machine.weather.share = 0.35
    try:
        yield
    finally:
        machine.weather.share = CALM


def lose_channel(machine: Machine) -> Iterator[None]:
    machine.node.mute = True
    try:
        yield
    finally:
        machine.node.mute = False


def reboot(machine: Machine) -> Iterator[None]:
    machine.node.up = False
    machine.node.reboot()
    try:
        yield
    finally:
        machine.node.up = True


def unfit(machine: Machine) -> Iterator[None]:
    machine.node.unfit = "its host key has changed"
    try:
        yield
    finally:
        machine.node.unfit = None


def leave(machine: Machine) -> Iterator[None]:
    """Out of nodes.json, and in again."""
    machine.world.listed.discard(machine.node.name)
    machine.world.write_nodes()
    try:
        yield
    finally:
        machine.world.listed.add(machine.node.name)
        machine.world.write_nodes()


def lie(machine: Machine) -> Iterator[None]:
    """Tell of an older attempt, of the future and of hours ago, and of what never was."""
    machine.node.distort = lambda told: lies(machine, told)
    machine.node.skew = machine.rng.choice([-3 * HOUR, 5 * HOUR])
    try:
        yield
    finally:
        machine.node.distort, machine.node.skew = None, 0.0


EPISODES: tuple[Episode, ...] = (
    cut_off, cut_off, hang, bad_line, bad_line, lose_channel, reboot, unfit, leave, lie, lie,
)  # fmt: skip


def lies(machine: Machine, told: Sequence[Observation]) -> Sequence[Observation]:
    """Return what the machine says instead. Its word on whether a process lives stays true."""
    rng = machine.rng
    machine.past = [*machine.past, *(seen for seen in told if seen.state.final)][-20:]
    said = [_skewed(seen, rng.choice([-3 * HOUR, 0.0, 30.0, 26 * HOUR])) for seen in told]
    if told and rng.random() < 0.3:
        said.append(replace(rng.choice(told), lease=f"{machine.node.name}:00000000"))
    if told and rng.random() < 0.2:
        said.append(_finished(rng.choice(told), attempt=97))
    if machine.past and rng.random() < 0.5:
        said.append(rng.choice(machine.past))
    if rng.random() < 0.2:
        said = [_broken(seen) if rng.random() < 0.3 else seen for seen in said]
    return said


def _skewed(seen: Observation, by: float) -> Observation:
    def moved(at: float | None) -> float | None:
        return None if at is None else at + by

    return replace(
        seen, started_at=moved(seen.started_at), completed_at=moved(seen.completed_at),
        heartbeat_at=moved(seen.heartbeat_at), log_at=moved(seen.log_at),
        files_at=moved(seen.files_at),
    )  # fmt: skip


def _finished(seen: Observation, attempt: int) -> Observation:
    return replace(seen, state=RunState.COMPLETED, alive=False, exit_code=0, attempt=attempt)


def _broken(seen: Observation) -> Observation:
    """A status.json that cannot be read: the folder is known, little else."""
    return replace(seen, state=RunState.UNKNOWN, lease=None, attempt=None, reason=None)
