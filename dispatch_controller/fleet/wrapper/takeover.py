"""One `serve` per home: serve.lock, and serve.next, which names the one that may start.

A new `serve` first writes its name to serve.next, so the earlier one refuses every further start,
then ends it and waits for the lock. Supervisors of starts that are not yet on disk share the lock;
when it is free, everything that was started can be seen in the tasks' folders.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import time
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import procs
from dispatch_controller.fleet.wrapper.taskdir import encode

if TYPE_CHECKING:
    from dispatch_controller.fleet.wrapper.layout import Layout

_PATIENCE = 30.0
_TERM_FIRST = 0.5


class Superseded(Exception):
    """A newer `serve` of this home wants the lock too; it shall have it."""


class NoLock(Exception):
    """serve.lock could not be had; the text says who holds it."""


class Seat:
    """The place of this home's one `serve`. `fd` holds serve.lock."""

    def __init__(self, layout: Layout) -> None:
        self._next = layout.state_file("serve.next")
        self._lock = layout.state_file("serve.lock")
        self.fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._name = self._claim()

    def is_named(self) -> bool:
        """Whether this is still the `serve` that may start. One look at a file."""
        return _identity(self._next) == self._name

    def take(self) -> None:
        """Take the lock, ending an earlier holder. Raises Superseded or NoLock."""
        began = time.monotonic()
        while not self._try():
            waited = time.monotonic() - began
            if not self.is_named():
                raise Superseded(f"a newer serve than pid {os.getpid()} took over")
            if waited > _PATIENCE:
                raise NoLock(f"{self._lock} is held by {self._holder()} and cannot be had")
            self._end_holder(signal.SIGTERM if waited < _TERM_FIRST else signal.SIGKILL)
            time.sleep(0.02)
        if not self.is_named():
            raise Superseded(f"a newer serve than pid {os.getpid()} took over")
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, _me(), 0)

    def _claim(self) -> tuple[int, int]:
        beside = f"{self._next}.{os.getpid()}"
        with open(beside, "wb") as file:
            file.write(_me())
        os.rename(beside, self._next)
        return _identity(self._next) or (0, 0)

    def _try(self) -> bool:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno != errno.EWOULDBLOCK:
                raise
            return False
        return True

    def _holder(self) -> dict[str, object]:
        try:
            holder = json.loads(os.pread(self.fd, 4096, 0) or b"{}")
        except ValueError:
            return {}
        return holder if isinstance(holder, dict) else {}

    def _end_holder(self, number: int) -> None:
        holder = self._holder()
        pid = holder.get("pid")
        if pid != os.getpid() and procs.is_same(pid, holder.get("start"), holder.get("boot_id")):
            try:
                os.kill(int(str(pid)), number)
            except OSError:
                return


def _identity(path: str) -> tuple[int, int] | None:
    """What tells one version of a file that is only ever replaced by rename from the next."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_ino, info.st_mtime_ns


def _me() -> bytes:
    pid = os.getpid()
    return encode({"pid": pid, "start": procs.start_of(pid), "boot_id": procs.boot_id()})
