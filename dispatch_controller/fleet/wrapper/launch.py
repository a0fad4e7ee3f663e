"""What passes from the decision to start to the supervisor, and its one word back."""

from __future__ import annotations

import contextlib
import copy
import os
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import clock, procs
from dispatch_controller.fleet.wrapper.taskdir import encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from dispatch_controller.fleet.wrapper.fence import Fence
    from dispatch_controller.fleet.wrapper.layout import Layout
    from dispatch_controller.fleet.wrapper.order import Order


class Post:
    """How the supervisor tells the process that forked it: one line, once."""

    def __init__(self, fd: int, request: int) -> None:
        self._fd = fd
        self._request = request

    def tell(self, outcome: str, reason: str = "", message: str = "") -> None:
        """`running`, or `refused` with its reason. Shorter than PIPE_BUF, so it stays whole."""
        if self._fd < 0:
            return
        line = [self._request, outcome, reason, message[:100]]
        with contextlib.suppress(OSError):  # it is gone; status.json says the same
            os.write(self._fd, encode(line) + b"\n")
        self._fd = -1


class Launch:
    """What a start was decided on: everything the supervisor needs."""

    def __init__(
        self,
        layout: Layout,
        fence: Fence,
        order: Order,
        argv: list[str],
        dir_fd: int,
        *,
        fresh: bool,
        locked: bool,
        oom_kills: int,
        wrapper: str,
        still_named: Callable[[], bool],
    ) -> None:
        self.layout = layout
        self.fence = fence
        self.order = order
        self.argv = argv
        self.dir_fd = dir_fd
        self.fresh = fresh
        """The folder was made for this attempt: there is nothing old in it."""
        self.locked = locked
        self.wrapper = wrapper
        self.oom_kills = oom_kills
        """Kills for want of memory before it (memory.py)."""
        self.still_named = still_named
        """Whether the `serve` that read this order is still the one that may start."""

    def another(
        self, order: Order, dir_fd: int, *, argv: list[str], fresh: bool, locked: bool,
        oom_kills: int,
    ) -> Launch:  # fmt: skip
        """The same for another order that the same `serve` decided on."""
        other = copy.copy(self)
        other.order, other.dir_fd, other.argv = order, dir_fd, argv
        other.fresh, other.locked, other.oom_kills = fresh, locked, oom_kills
        return other


def first_status(launch: Launch, api_mode: str) -> dict[str, Any]:
    """A status.json with every field, of an attempt that is about to begin."""
    order = launch.order
    return {
        "status": "pending",
        "task_id": order.task_id,
        "project": order.project,
        "node": os.uname().nodename,
        "owner": launch.layout.owner or None,
        "lease": order.lease,
        "attempt": order.attempt,
        "sequence": order.sequence,
        "attempts": 1,
        "pid": None,
        "pid_start": None,
        "supervisor": os.getpid(),
        "supervisor_start": procs.own_start(),
        "boot_id": procs.boot_id(),
        "wrapper": launch.wrapper,
        "api_mode": api_mode,
        "code": order.code,
        "started_at": clock.iso(clock.now()),
        "completed_at": None,
        "exit_code": None,
        "reason": None,
        "error": None,
        "gates": dict.fromkeys(order.gates, "not_run"),
        "git_mode": order.git is not None,
        "git_branch": order.git["push"] if order.git else None,
        "git_base": None,
        "git_push_ok": None,
        "files_changed": 0,
        "loc_added": 0,
        "loc_removed": 0,
        "artifact_hash": None,
        "outside": [],
        "salvage": None,
        "rate_limited_until": None,
        "leftovers": [],
    }
