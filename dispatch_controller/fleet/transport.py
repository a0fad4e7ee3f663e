"""The one interface to a node, whatever the way to it.

`Transport` speaks of tasks; `Machine` is the way to a host that SSH and local share. What a node
said comes back as a value; a node that gave no usable answer raises `TransportLost`, which says
nothing about any task (scheduling.md, "Unknown is not gone").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dispatch_controller.model import (
    Collection,
    KillOutcome,
    LogChunk,
    Observation,
    Probe,
    StartOrder,
    StartOutcome,
    TaskRef,
    VoidOutcome,
)


class TransportLost(Exception):
    """The node gave no usable answer. `node` names it, the text says what happened."""

    def __init__(self, node: str, message: str) -> None:
        super().__init__(f"{node}: {message}")
        self.node = node
        self.message = message

    def again(self) -> TransportLost:
        """Return the same failure as a new exception, for one more who waited for it."""
        return type(self)(self.node, self.message)


class NodeUnfit(TransportLost):
    """The node answered and cannot serve until a person mends it; the text says how.

    An unknown or changed host key, a refused login, no python3.
    """


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ran to its end on a machine."""

    exit_status: int
    stdout: bytes
    stderr: bytes


class LineChannel(Protocol):
    """A program's standard input and output, as lines. Closing it ends the conversation."""

    async def send(self, line: bytes) -> None:
        """Write one line (without its newline). Raises TransportLost when the channel is gone."""

    async def receive(self) -> bytes:
        """Return the next line (without its newline). Raises TransportLost at end of file."""

    async def aclose(self) -> None: ...


class Machine(Protocol):
    """A host one can run programs on. Every method raises TransportLost (or NodeUnfit)."""

    node: str

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float | None = None
    ) -> Completed:
        """Run a program to its end. A lost connection raises; it never looks like an empty answer.

        An argument that starts with `~/` means the login's home folder; nothing else is expanded.
        """

    async def open(self, argv: Sequence[str]) -> LineChannel:
        """Start a program and talk with it by lines."""

    async def put(self, path: str, content: bytes) -> None:
        """Write a file beside its place, then rename it there; parent folders are made."""

    async def get(self, path: str, *, limit: int) -> bytes:
        """Return a file's content, at most `limit` bytes."""


Reporter = Callable[[Sequence[Observation]], None]
"""Takes what a node told unasked. Called on Trio's thread; must not block."""


class Transport(Protocol):
    """How the loops deal with one node. Raises TransportLost except where stated."""

    node: str

    async def start(self, order: StartOrder) -> StartOutcome:
        """Start one attempt. Never raises for a lost node: that is `Unknown`."""

    async def void(self, ref: TaskRef) -> VoidOutcome: ...

    async def collect(self) -> Collection: ...

    async def kill(self, ref: TaskRef, grace: float) -> KillOutcome: ...

    async def probe(self, programs: Sequence[str] = ()) -> Probe: ...

    async def ack(self, refs: Sequence[TaskRef]) -> None: ...

    async def cleanup(self, tasks: Sequence[tuple[str, str]]) -> None:
        """Remove the folders of (project, folder) that are acknowledged and salvaged."""

    async def salvage(self, project: str, folder: str) -> str | None:
        """Save what an attempt made whose supervisor is gone.

        Return the branch or the path below the work_dir where it is; None where there is nothing,
        or where only the node's own wrapper could do that.
        """

    async def read_log(
        self, project: str, folder: str, offset: int, limit: int, name: str = "task.log"
    ) -> LogChunk: ...
