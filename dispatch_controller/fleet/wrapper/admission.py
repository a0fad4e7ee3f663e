"""May this attempt start here? Everything that can be said before a supervisor is forked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import memory
from dispatch_controller.fleet.wrapper.attempt import Refused
from dispatch_controller.fleet.wrapper.environment import find_program
from dispatch_controller.fleet.wrapper.fence import word
from dispatch_controller.fleet.wrapper.launch import Launch
from dispatch_controller.fleet.wrapper.order import BadOrder, Order
from dispatch_controller.fleet.wrapper.report import lives
from dispatch_controller.fleet.wrapper.taskdir import is_final, open_dir, read_status, try_lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatch_controller.fleet.wrapper.fence import Fence
    from dispatch_controller.fleet.wrapper.layout import Layout

_FULL = 0.98
_LOOKER = 0.05  # somebody who only looks at the lock holds it for far less


def admit(
    layout: Layout,
    fence: Fence,
    order: Order,
    wrapper: str,
    still_named: Callable[[], bool],
) -> Launch:
    """Return what the supervisor needs, with the task's lock held. Raises Refused.

    Where only leftovers of a final attempt hold the lock, `locked` is False: the supervisor takes
    it, since that may take seconds.
    """
    path = layout.task(order.project, order.folder)
    argv = _command(order, path)
    if word(order.project, order.folder, order.lease) in fence.voids:
        raise Refused("void", f"lease {order.lease} was voided here")
    if not still_named():
        raise Refused("superseded", "a newer serve of this home took over")
    try:
        fresh = _make(path)
        _check_disk(path)
        fd = open_dir(path)
    except OSError as e:
        raise Refused("disk_full" if e.errno == 28 else "wrapper_error", str(e)) from e
    try:
        locked = try_lock(fd, 0.0 if fresh else _LOOKER)
        fresh = fresh and locked
        if not fresh:
            _check_previous(layout, order, fd, locked=locked)
    except BaseException:
        os.close(fd)
        raise
    return Launch(
        layout, fence, order, argv, fd,
        fresh=fresh, locked=locked, oom_kills=memory.recent_oom_kills(), wrapper=wrapper,
        still_named=still_named,
    )  # fmt: skip


def _command(order: Order, path: str) -> list[str]:
    try:
        argv = order.command(path + "/spec.md")
    except BadOrder as e:
        raise Refused("bad_order", str(e)) from e
    program = find_program(argv[0], order.modes[0].env.get("PATH"))
    if program is None:
        raise Refused("executor_missing", f"{argv[0]}: no such program on this node")
    if order.git and find_program("git") is None:
        raise Refused("executor_missing", "git: no such program on this node")
    return [program, *argv[1:]]


def _make(path: str) -> bool:
    """Create the task's folder; False when it was there."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return False
    except FileNotFoundError:
        os.makedirs(path, exist_ok=True)
        return False
    return True


def _check_disk(path: str) -> None:
    disk = os.statvfs(path)
    used = disk.f_blocks - disk.f_bfree
    share = used / ((used + disk.f_bavail) or 1)
    if share > _FULL:
        raise Refused("disk_full", f"{path}: the disk is {share:.0%} full")


def _check_previous(layout: Layout, order: Order, fd: int, *, locked: bool) -> None:
    status, broken = read_status(fd)
    if not locked and not is_final(status):
        said = "its status.json cannot be read" if broken else "see its task"
        raise Refused("alive", f"a process of {order.project}/{order.folder} lives; {said}")
    if status is None:
        return
    if locked and not is_final(status) and lives(status, lock_held=False):
        raise Refused("alive", f"process {status.get('pid')} of an older wrapper lives")
    if not order.is_newer_than(status):
        known = f"attempt {status.get('attempt')}, sequence {status.get('sequence')}"
        raise Refused("stale", f"not newer than the last one known here ({known})")
