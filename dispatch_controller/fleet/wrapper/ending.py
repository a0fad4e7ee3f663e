"""Ending everything an agent started, and nothing else.

On Linux the supervisor is a subreaper: what leaves the agent's group and session by `setsid` and
loses its parent becomes its child, so its descendants are exactly the agent's. The lease in the
environment finds what left before a supervisor died. On macOS: the group, the process tree, and
the lease in `ps -E`.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import procs

if TYPE_CHECKING:
    from typing import Any

    from dispatch_controller.fleet.wrapper.watch import Watch

_PR_SET_CHILD_SUBREAPER = 36
_AFTER_KILL = 5.0


def become_subreaper() -> bool:
    """Adopt orphans from below; False where the system cannot. Not inherited by fork."""
    if not procs.LINUX:
        return False
    libc = _libc()
    return libc is not None and libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


_loaded: list[Any] = []


def _libc() -> Any:  # noqa: ANN401 - ctypes builds it at run time
    """The C library, loaded once: `serve` loads it before it forks."""
    if not _loaded:
        try:
            import ctypes

            _loaded.append(ctypes.CDLL(None, use_errno=True))
        except (ImportError, OSError):
            _loaded.append(None)
    return _loaded[0]


def preload() -> None:
    """Load what every supervisor needs, so that forks share it."""
    if procs.LINUX:
        _libc()


class Tree:
    """What belongs to one attempt: found anew each time, known by pid and start time.

    `group` is the agent's pid when it is certain that this number still means the agent's group.
    `below` is the process whose descendants all belong to it. `lease` finds by environment.
    """

    def __init__(self, *, group: int | None, below: int | None, lease: str | None) -> None:
        self.group = group
        self._below = below
        self._lease = lease
        self._seen: dict[int, str] = {}

    def members(self) -> dict[int, str]:
        """Living processes (pid: start time) of the attempt; never this process or one above."""
        table = procs.table()
        found: set[int] = set()
        if self._below is not None:
            found |= procs.descendants(table, self._below)
        if self._lease is not None:
            found |= procs.marked(table, self._lease)
        if self.group is not None:
            found |= {p.pid for p in table.values() if self.group in (p.pgid, p.session)}
        # One that was seen and has lost its parent since is still ours (macOS).
        found |= {pid for pid, start in self._seen.items() if _start(table, pid) == start}
        found -= procs.ancestors(table, os.getpid())
        living = {pid: table[pid].start for pid in found if pid in table and not table[pid].zombie}
        self._seen.update(living)
        return living

    def signal(self, number: int) -> dict[int, str]:
        """Send a signal to every member; returns those it was sent to."""
        members = self.members()
        for pid in members:
            _send(pid, number)
        return members

    def end(self, watch: Watch, grace: float) -> list[int]:
        """TERM, `grace` seconds, KILL. Returns the pids that survived even that."""
        if self.signal(signal.SIGTERM):
            # A stopped process acts on the signal only when it runs again.
            self.signal(signal.SIGCONT)
            if watch.sleep_until(time.monotonic() + grace, lambda: self._gone(watch)):
                return []
            until = time.monotonic() + _AFTER_KILL
            while self.signal(signal.SIGKILL) and time.monotonic() < until:
                watch.sleep_until(time.monotonic() + 0.2, lambda: self._gone(watch))
        watch.reap()
        return sorted(self.members())

    def _gone(self, watch: Watch) -> bool:
        if not watch.reap() and self._below is not None and procs.LINUX and self._lease is None:
            return True
        return not self.members()


def _start(table: dict[int, procs.Process], pid: int) -> str | None:
    return table[pid].start if pid in table else None


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        return  # it ended by itself, or belongs to another user
