"""Waiting: for a child's end, for a deadline, for the word to end the task; meanwhile, heartbeat.

One per supervisor. Signals arrive as bytes in a pipe, so nothing is lost between look and wait.
"""

from __future__ import annotations

import os
import select
import signal
import time
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import clock
from dispatch_controller.fleet.wrapper.taskdir import read_small, write_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

TICK = 10.0
END = "end.json"

EXITED = "exited"
TIMEOUT = "timeout"
KILLED = "killed"


def _noted(number: int, frame: FrameType | None) -> None:
    """The wake-up pipe has told already."""


class Watch:
    """Reaps this process's children and keeps their wait statuses until somebody asks."""

    def __init__(self, dir_fd: int, grace: float) -> None:
        self._dir_fd = dir_fd
        self.on_beat: Callable[[], None] | None = None
        """Called with every heartbeat."""
        self.grace = grace
        self.killed = False
        self.deaf = False
        """Set once the task is being ended: what still runs (salvage) is not to be interrupted."""
        self._statuses: dict[int, int] = {}
        self._beat_at = time.monotonic() + TICK
        self._pipe, self._wake = os.pipe()
        os.set_blocking(self._pipe, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _noted)
        signal.signal(signal.SIGHUP, _noted)  # unlike an ignored one, no program inherits it

    def close(self) -> bool:
        """Stop watching; SIGTERM ends this process again. Whether nothing is left: no child, and no
        word to end that was not seen to."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        numbers = os.read(self._pipe, 512) if select.select([self._pipe], [], [], 0)[0] else b""
        os.close(self._pipe)
        os.close(self._wake)
        told = self.killed or signal.SIGTERM in numbers or signal.SIGINT in numbers
        return not self.reap() and not told

    def reap(self) -> bool:
        """Take in what ended; False when this process has no child left, dead or alive.

        As a subreaper it is the parent of whatever lost its own, so no child means: nothing that
        descends from the agent lives.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self._statuses[pid] = status

    def taken(self, pid: int) -> int | None:
        """The wait status of a child that was reaped, once."""
        return self._statuses.pop(pid, None)

    def wait(self, pid: int, deadline: float) -> tuple[str, int]:
        """Wait for a child. Returns (EXITED, wait status), (TIMEOUT, 0) or (KILLED, 0).

        `deadline` is monotonic. After KILLED was returned once, later waits only end by exit or
        deadline: the caller knows.
        """
        told = self.killed or self.deaf
        while True:
            self.reap()
            status = self.taken(pid)
            if status is not None:
                return EXITED, status
            if self.killed and not told:
                return KILLED, 0
            left = deadline - time.monotonic()
            if left <= 0:
                return TIMEOUT, 0
            self.pause(left)

    def pause(self, seconds: float) -> None:
        """Sleep until a signal, at most `seconds`, at most to the next heartbeat."""
        left = max(0.0, min(seconds, self._beat_at - time.monotonic()))
        if select.select([self._pipe], [], [], left)[0]:
            numbers = os.read(self._pipe, 512)
            if signal.SIGTERM in numbers or signal.SIGINT in numbers:
                self._told_to_end()
        if time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + TICK
            self.beat()
            if self.on_beat is not None:
                self.on_beat()
            if read_small(self._dir_fd, END) is not None:
                self._told_to_end()

    def sleep_until(self, until: float, done: Callable[[], bool]) -> bool:
        """Wait until `done()`, at most to `until` (monotonic); returns the last `done()`."""
        while not done():
            left = until - time.monotonic()
            if left <= 0:
                return False
            self.pause(min(left, 0.05))
        return True

    def beat(self) -> None:
        """Write the heartbeat. A full disk stops no task."""
        try:
            write_file(self._dir_fd, "heartbeat", (clock.iso(clock.now()) + "\n").encode())
        except OSError:
            return

    def _told_to_end(self) -> None:
        """A signal alone (a shutdown, a person) means the usual grace."""
        import json

        self.killed = True
        raw = read_small(self._dir_fd, END)
        if raw is None:
            return
        try:
            self.grace = float(json.loads(raw)["grace"])
        except (ValueError, KeyError, TypeError):
            return
