"""One program over an SSH channel: asyncssh's callbacks turned into Trio's events.

The callbacks run on Trio's thread (trio-asyncio's loop is a Trio task), so they may set Trio's
events and fill memory channels; whoever waits on those needs no asyncio at all.
"""

from __future__ import annotations

import contextlib
import math

import asyncssh
import trio

from dispatch_controller.fleet.lines import LineSplitter

OUTPUT_LIMIT = 256 * 1024 * 1024
STDERR_KEPT = 4096
QUEUED_LINES = 64


class ProgramSession(asyncssh.SSHClientSession[bytes]):
    """A program's channel. Subclasses say what becomes of its standard output."""

    def __init__(self) -> None:
        self.channel: asyncssh.SSHClientChannel[bytes] | None = None
        self.ended = trio.Event()
        """The channel is closed, whatever the reason."""
        self.returncode: int | None = None
        """Exit status, or minus the signal; None when the connection was lost before it came."""
        self.stderr = b""
        self._writable = trio.Event()
        self._writable.set()

    # --- called by asyncssh

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self.channel = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if datatype is None:
            self.output_received(data)
        else:
            self.stderr = (self.stderr + data)[-STDERR_KEPT:]

    def pause_writing(self) -> None:
        self._writable = trio.Event()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.channel is not None:
            self.returncode = self.channel.get_returncode()
        self._writable.set()
        self.ended.set()

    # --- for those who use it

    def output_received(self, data: bytes) -> None:
        raise NotImplementedError

    async def write(self, data: bytes) -> None:
        """Send to standard input; waits while the other side does not read."""
        await self._writable.wait()
        if self.channel is not None and not self.ended.is_set():
            with contextlib.suppress(OSError):
                self.channel.write(data)

    def end_input(self) -> None:
        if self.channel is not None:
            with contextlib.suppress(OSError):
                self.channel.write_eof()

    def close(self, *, signal: str | None = None) -> None:
        """Close at once, without waiting; with `signal`, send it to the program first.

        sshd leaves a program without a terminal running when its channel closes.
        """
        if self.channel is None or self.ended.is_set():
            return
        if signal is not None:
            with contextlib.suppress(OSError):
                self.channel.send_signal(signal)
        self.channel.abort()

    def ending(self) -> str:
        """Say how the program ended, for an error message."""
        if self.returncode is None:
            return "the connection was lost"
        said = self.stderr.decode(errors="replace").strip()
        return f"the program ended with status {self.returncode}" + (f": {said}" if said else "")


class CollectingSession(ProgramSession):
    """Keeps the standard output."""

    def __init__(self) -> None:
        super().__init__()
        self._chunks: list[bytes] = []
        self._size = 0
        self.overflow = False

    def output_received(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > OUTPUT_LIMIT:
            self.overflow = True
            self.close(signal="TERM")
        else:
            self._chunks.append(data)

    @property
    def stdout(self) -> bytes:
        return b"".join(self._chunks)


class LineSession(ProgramSession):
    """Hands the standard output on, line by line."""

    def __init__(self) -> None:
        super().__init__()
        self._splitter = LineSplitter()
        self._lines, self.lines = trio.open_memory_channel[bytes](math.inf)
        self.queue, self.queued = trio.open_memory_channel[bytes](QUEUED_LINES)
        """Lines on their way out."""
        self.scope = trio.CancelScope()
        """Cancelling it closes the channel, from anywhere."""
        self.broken: str | None = None

    def output_received(self, data: bytes) -> None:
        try:
            lines = self._splitter.feed(data)
        except ValueError as error:
            self.broken = str(error)
            self.close()
            return
        for line in lines:
            with contextlib.suppress(trio.BrokenResourceError):
                self._lines.send_nowait(line)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.is_set():
            super().connection_lost(exc)
            self._lines.close()
            self.queued.close()

    def ending(self) -> str:
        return self.broken or super().ending()
