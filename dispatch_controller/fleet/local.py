"""This machine, as a `Machine`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import trio

from dispatch_controller.fleet.files import ShellFiles
from dispatch_controller.fleet.lines import LineSplitter
from dispatch_controller.fleet.transport import Completed, LineChannel, TransportLost

_CHUNK = 65536
_GRACE = 2.0
"""Seconds a program gets to end by itself once its standard input is closed."""


class LocalMachine(ShellFiles):
    """Programs run in sessions of their own: what stops the controller does not stop them."""

    def __init__(self, node: str, command_timeout: float = 30.0) -> None:
        self.node = node
        self._command_timeout = command_timeout

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float | None = None
    ) -> Completed:
        limit = self._command_timeout if timeout is None else timeout
        with trio.move_on_after(limit):
            try:
                done = await trio.run_process(
                    _words(argv),
                    stdin=stdin,
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                    start_new_session=True,
                    env=_environment(),
                    deliver_cancel=_end_group,
                )
            except FileNotFoundError as error:
                return Completed(127, b"", str(error).encode())
            except OSError as error:
                raise TransportLost(self.node, f"{argv[0]} does not start: {error}") from error
            return Completed(done.returncode, done.stdout, done.stderr)
        raise TransportLost(self.node, f"no end within {limit:g} s of: {' '.join(argv)[:80]}")

    async def open(self, argv: Sequence[str]) -> LineChannel:
        complaints = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the channel
        try:
            process = await trio.lowlevel.open_process(
                _words(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                start_new_session=True,
                env=_environment(),
            )
        except BaseException as error:
            complaints.close()
            if isinstance(error, OSError):
                raise TransportLost(self.node, f"{argv[0]} does not start: {error}") from error
            raise
        return LocalLineChannel(self.node, process, complaints)


class LocalLineChannel:
    """`LineChannel` to a program on this machine."""

    def __init__(self, node: str, process: trio.Process, complaints: IO[bytes]) -> None:
        self._node = node
        self._process = process
        self._complaints = complaints
        self._splitter = LineSplitter()
        self._lines: deque[bytes] = deque()
        self._sending = trio.Lock()
        self._closed = False

    async def send(self, line: bytes) -> None:
        stdin = self._process.stdin
        async with self._sending:
            try:
                if stdin is None:
                    raise trio.ClosedResourceError
                await stdin.send_all(line + b"\n")
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise TransportLost(self._node, self._ending()) from None

    async def receive(self) -> bytes:
        stdout = self._process.stdout
        while not self._lines:
            try:
                data = b"" if stdout is None else await stdout.receive_some(_CHUNK)
                self._lines.extend(self._splitter.feed(bytes(data)))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            except ValueError as error:
                raise TransportLost(self._node, str(error)) from error
            if not data:
                await self._wait_briefly()
                raise TransportLost(self._node, self._ending())
        return self._lines.popleft()

    async def aclose(self) -> None:
        """Close the program's input; end it if it does not end by itself soon."""
        if self._closed:
            return
        self._closed = True
        with trio.CancelScope(shield=True):
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    await pipe.aclose()
            await self._wait_briefly()
            if self._process.returncode is None:
                _signal_group(self._process, signal.SIGKILL)
                await self._process.wait()
        self._complaints.close()

    async def _wait_briefly(self) -> None:
        with trio.move_on_after(_GRACE):
            await self._process.wait()

    def _ending(self) -> str:
        if self._closed:
            return "the channel is closed"
        if self._process.returncode is None:
            return "the program closed its output"
        self._complaints.seek(0, os.SEEK_END)
        self._complaints.seek(max(0, self._complaints.tell() - 4096))
        said = self._complaints.read().decode(errors="replace").strip()
        status = self._process.returncode
        return f"the program ended with status {status}" + (f": {said}" if said else "")


def _words(argv: Sequence[str]) -> list[str]:
    """The same meaning that quoting.py gives to `~/` on a remote machine."""
    return [str(Path.home()) + word[1:] if word.startswith("~/") else word for word in argv]


def _environment() -> dict[str, str]:
    """This process's environment without its own settings, secrets among them."""
    return {key: value for key, value in os.environ.items() if not key.startswith("DISPATCH_")}


async def _end_group(process: trio.Process) -> None:
    _signal_group(process, signal.SIGKILL)


def _signal_group(process: trio.Process, number: signal.Signals) -> None:
    # The session's leader is not reaped yet, so its group cannot be another's.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
