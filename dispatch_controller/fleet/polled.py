"""`Transport` for nodes that keep their own `task-wrapper.sh`: polled, one round trip a verb."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

import trio

from dispatch_controller.fleet.observation import observe
from dispatch_controller.fleet.polled_listing import parse_listing
from dispatch_controller.fleet.polled_scripts import (
    ACK,
    BECOME,
    COLLECT,
    KILL,
    LOG,
    PROBE,
    START,
    VOID,
)
from dispatch_controller.fleet.traffic import Traffic
from dispatch_controller.fleet.transport import Machine, TransportLost
from dispatch_controller.model import (
    Adopted,
    Collection,
    KillOutcome,
    LogChunk,
    Observation,
    Probe,
    Refused,
    RunState,
    Started,
    StartOrder,
    StartOutcome,
    TaskRef,
    Unknown,
    Voided,
    VoidOutcome,
)
from dispatch_controller.runtime.clock import Clock

MARK = "<!-- dispatch: the task -->"
"""Line between context and spec in spec.md (docs/wrapper-protocol.md)."""
_CLOSING = b"@end\n"
_NAME = re.compile(r"(?!-)(?!\.{1,2}\Z)[^/\x00-\x20\x7f]{1,200}")
_REFUSALS = {
    "alive": "a process of this task lives",
    "void": "this lease was voided",
    "stale": "not newer than the last attempt known here",
    "wrapper_error": "the node's own wrapper is missing or not executable",
}


class PolledTransport:
    """Tells nothing unasked; an answer without its closing line, or with an exit status, raises
    TransportLost.

    `wrapper` is called as `<wrapper> <project> <folder> <spec_file> [repo_url] [branch]`, with
    API_MODE, LEASE, ATTEMPT, TASK_TIMEOUT_SECS and EXECUTOR_CMD in its environment.
    """

    def __init__(self, machine: Machine, root: str, owner: str, wrapper: str, clock: Clock) -> None:
        self.node = machine.node
        self.machine = machine
        self.traffic = Traffic()
        self._root = root
        self._owner = owner
        self._wrapper = wrapper
        self._clock = clock

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """There is no channel to keep: wait until cancelled."""
        task_status.started()
        await trio.sleep_forever()

    async def start(self, order: StartOrder) -> StartOutcome:
        """Start one attempt; an answer that is lost or cannot be read is `Unknown`."""
        spec = f"{order.context}\n{MARK}\n{order.spec}" if order.context else order.spec
        content = spec.encode()
        try:
            where = self._where(TaskRef(order.project, order.folder, order.lease))
            words = [str(order.attempt), str(order.sequence), str(len(content)), BECOME]
            argv = [*where, *words, *self._command(order)]
            answer = (await self._shell(START, argv, content)).decode()
        except TransportLost as lost:
            return Unknown(str(lost))
        word, _, rest = answer.strip().partition(" ")
        if word == "running" and rest.isdecimal():
            return Started(self._started(order, int(rest)))
        if word == "refused" and rest in _REFUSALS:
            return Refused(rest, _REFUSALS[rest], await self._living(order))
        return Unknown(f"{self.node}: start was answered with {answer!r:.200}")

    def _command(self, order: StartOrder) -> list[str]:
        """The wrapper, for the check that it is executable, and the command that runs it."""
        mode = order.executor.modes[0]
        environment = {
            **mode.env,
            "API_MODE": mode.api_mode,
            "LEASE": order.lease,
            "ATTEMPT": str(order.attempt),
            "SEQUENCE": str(order.sequence),
            "TASK_TIMEOUT_SECS": str(order.timeout),
            "EXECUTOR": order.executor.name,
            "EXECUTOR_CMD": shlex.join(order.executor.argv),
            "DISPATCH_ROOT": self._root,
            "DISPATCH_OWNER": self._owner,
        }
        spec_file = f"{self._root}/{order.project}/tasks/{order.folder}/spec.md"
        git = [order.git.url, order.git.branch] if order.git is not None else []
        settings = [f"{name}={value}" for name, value in environment.items()]
        call = [self._wrapper, order.project, order.folder, spec_file, *git]
        return [self._wrapper, "env", *settings, *call]

    def _started(self, order: StartOrder, pid: int) -> Observation:
        return Observation(
            node=self.node,
            project=order.project,
            folder=order.folder,
            task_id=order.task_id,
            lease=order.lease,
            attempt=order.attempt,
            state=RunState.RUNNING,
            alive=True,
            pid=pid,
            started_at=self._clock.wall(),
        )

    async def _living(self, order: StartOrder) -> Observation | None:
        """What holds the folder; None where it cannot be told now."""
        try:
            return _find(await self.collect(), order.project, order.folder)
        except TransportLost:
            return None

    async def void(self, ref: TaskRef) -> VoidOutcome:
        answer = (await self._shell(VOID, self._where(ref))).decode().strip()
        if answer == "void":
            return Voided()
        if answer != "start":
            raise TransportLost(self.node, f"void was answered with {answer!r:.200}")
        seen = _find(await self.collect(), ref.project, ref.folder)
        if seen is not None and seen.lease == ref.lease:
            return Adopted(seen)
        # Started, ended, and acknowledged or followed by another since.
        return Adopted(
            Observation(
                node=self.node,
                project=ref.project,
                folder=ref.folder,
                task_id=None,
                lease=ref.lease,
                attempt=None,
                state=RunState.UNKNOWN,
                alive=False,
            )
        )

    async def collect(self) -> Collection:
        text = (await self._shell(COLLECT, [self._root, self._owner])).decode(errors="replace")
        now = self._clock.wall()
        try:
            listing = parse_listing(text)
            offset = now - listing.now
            seen = tuple(observe(self.node, task, offset) for task in listing.tasks())
        except (ValueError, IndexError) as error:
            raise TransportLost(self.node, f"collect: {error}") from error
        return Collection(self.node, now, seen)

    async def kill(self, ref: TaskRef, grace: float) -> KillOutcome:
        seen = _find(await self.collect(), ref.project, ref.folder)
        if seen is not None and seen.lease not in (None, ref.lease):
            return KillOutcome.OTHER_LEASE
        if seen is None or not seen.alive or seen.pid is None or seen.pid < 2:
            return KillOutcome.GONE
        argv = [*self._where(ref), str(seen.pid), str(grace)]
        answer = (await self._shell(KILL, argv)).decode().strip()
        if answer not in ("ending", "gone"):
            raise TransportLost(self.node, f"kill was answered with {answer!r:.200}")
        return KillOutcome(answer)

    async def probe(self, programs: Sequence[str] = ()) -> Probe:
        began = trio.current_time()
        answer = await self._shell(PROBE, [self._root, self._wrapper, *programs])
        told: dict[str, list[str]] = {}
        agents: dict[str, dict[str, str | None]] = {}
        for line in answer.decode(errors="replace").splitlines():
            key, *words = line.split()
            if key == "agent" and len(words) > 1:
                agents[words[0]] = {"version": None, "path": " ".join(words[1:])}
            else:
                told[key] = words
        at, took = self._clock.wall(), trio.current_time() - began
        try:
            return _read_probe(self.node, told, agents, at, took)
        except (KeyError, IndexError, ValueError) as error:
            raise TransportLost(self.node, f"probe: cannot read {answer!r:.200}") from error

    async def ack(self, refs: Sequence[TaskRef]) -> None:
        for ref in refs:
            await self._shell(ACK, self._where(ref))

    async def cleanup(self, tasks: Sequence[tuple[str, str]]) -> None:
        """Nothing: whether a folder's content is safe elsewhere only its own wrapper knows."""

    async def salvage(self, project: str, folder: str) -> str | None:
        """None: its folder stays, and what is in it only its own wrapper could save."""
        return None

    async def read_log(
        self, project: str, folder: str, offset: int, limit: int, name: str = "task.log"
    ) -> LogChunk:
        words = [self._root, *(self._name(word) for word in (project, folder, name))]
        answer = await self._shell(LOG, [*words, str(offset), str(limit)])
        size, _, rest = answer.partition(b"\n")
        seen = _find(await self.collect(), project, folder)
        text = rest.removesuffix(b"\n").decode(errors="replace")
        return LogChunk(offset, int(size), text, seen is not None and seen.alive)

    def _where(self, ref: TaskRef) -> list[str]:
        names = (ref.project, ref.folder, ref.lease)
        return [self._root, self._owner, *(self._name(name) for name in names)]

    def _name(self, name: str) -> str:
        """Refuse what is not one component of a path."""
        if _NAME.fullmatch(name) is None:
            raise TransportLost(self.node, f"{name!r} cannot be the name of a file")
        return name

    async def _shell(self, script: str, argv: Sequence[str], stdin: bytes = b"") -> bytes:
        """Run a script; return what it said before its closing line."""
        with self.traffic.call():
            return await self._run(script, argv, stdin)

    async def _run(self, script: str, argv: Sequence[str], stdin: bytes) -> bytes:
        done = await self.machine.run(["sh", "-c", script, "sh", *argv], stdin=stdin)
        if done.exit_status != 0:
            why = done.stderr.decode(errors="replace").strip()[-500:]
            raise TransportLost(self.node, why or f"the script ended with {done.exit_status}")
        if not done.stdout.endswith(_CLOSING):
            raise TransportLost(self.node, "the answer is incomplete")
        return done.stdout.removesuffix(_CLOSING)


def _find(collection: Collection, project: str, folder: str) -> Observation | None:
    for seen in collection.tasks:
        if (seen.project, seen.folder) == (project, folder):
            return seen
    return None


def _read_probe(
    node: str,
    told: dict[str, list[str]],
    agents: dict[str, dict[str, str | None]],
    at: float,
    took: float,
) -> Probe:
    load = [float(word) for word in told["load"][:3]]
    disk = [int(word) * 1024 for word in told["disk"]]
    memory = [int(word) * 1024 for word in told["memory"]]
    return Probe(
        node=node,
        at=at,
        round_trip=took,
        clock_skew=float(told["now"][0]) - (at - took / 2),
        load=(load[0], load[1], load[2]),
        cpus=int(told["cpus"][0]),
        memory_total=memory[0],
        memory_free=memory[1] if len(memory) > 1 else None,
        disk_total=disk[0],
        disk_free=disk[1],
        wrapper=told["wrapper"][0] if told["wrapper"] else None,
        python=told["python"][-1] if told["python"] else None,
        git=told["git"][2] if len(told["git"]) > 2 else None,
        boot_id=" ".join(told["boot"]),
        agents=agents,
    )
