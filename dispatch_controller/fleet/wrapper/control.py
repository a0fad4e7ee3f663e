"""`void` and `kill`: what is done to an attempt from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import clock, log, notify, procs
from dispatch_controller.fleet.wrapper.ending import Tree
from dispatch_controller.fleet.wrapper.fence import Decision, word
from dispatch_controller.fleet.wrapper.previous import save_dead
from dispatch_controller.fleet.wrapper.taskdir import (
    encode,
    is_final,
    is_locked,
    open_dir,
    read_status,
    try_lock,
    write_file,
    write_last_status,
)
from dispatch_controller.fleet.wrapper.watch import END, Watch

_SUPERVISOR_PATIENCE = 300.0  # salvage may push over a slow line

if TYPE_CHECKING:
    from typing import Any

    from dispatch_controller.fleet.wrapper.fence import Fence
    from dispatch_controller.fleet.wrapper.layout import Layout
    from dispatch_controller.fleet.wrapper.report import Reporter


def void(
    layout: Layout, fence: Fence, reporter: Reporter, project: str, folder: str, lease: str
) -> dict[str, Any]:
    """The result of `void`: that lease was started, or will never be. Raises Busy or OSError."""
    os.makedirs(layout.tasks(project), exist_ok=True)
    with Decision(layout, project, shared=False):
        task = reporter.task(project, folder)
        if task is not None and task["lease"] == lease:
            over = is_final(task["status"])
            return {"outcome": "final" if over else "running", "task": task}
        if task is not None and task["broken"] and procs.marked(procs.table(), lease):
            return {"outcome": "running", "task": {**task, "lease": lease}}
        fence.voids.add([word(project, folder, lease)], durable=True)
    return {"outcome": "voided"}


def kill(
    layout: Layout, reporter: Reporter, project: str, folder: str, lease: str, grace: float
) -> tuple[dict[str, Any], bool]:
    """The result of `kill`, and whether the caller has to run `see_through` beside itself."""
    try:
        fd = open_dir(layout.task(project, folder))
    except OSError:
        return {"outcome": "gone"}, False
    try:
        held = is_locked(fd)
        status, _ = read_status(fd)
        if status is None or status.get("lease") != lease:
            if held and status is not None:
                return {"outcome": "other_lease", "task": reporter.task(project, folder)}, False
            return {"outcome": "gone"}, False
        if is_final(status) or not held:
            return {"outcome": "gone"}, False
        supervisor = status.get("supervisor")
        if procs.is_same(supervisor, status.get("supervisor_start"), status.get("boot_id")):
            write_file(fd, END, encode({"lease": lease, "grace": grace}))
            again, _ = read_status(fd)
            if again is not None and is_final(again):
                return {"outcome": "gone"}, False  # the supervisor may have gone on to another task
            with contextlib.suppress(ProcessLookupError):  # it ended between look and signal
                for number in (signal.SIGTERM, signal.SIGCONT):
                    os.kill(int(str(supervisor)), number)
    finally:
        os.close(fd)
    return {"outcome": "ending"}, True


def see_through(layout: Layout, project: str, folder: str, lease: str, grace: float) -> None:
    """See to it that an attempt which was told to end does, whatever becomes of its supervisor.

    Runs in a process of its own: a supervisor that dies before it acts, or never acts, is replaced.
    """
    fd = open_dir(layout.task(project, folder))
    until = time.monotonic() + grace + _SUPERVISOR_PATIENCE
    while True:
        status, _ = read_status(fd)
        if status is None or status.get("lease") != lease or is_final(status):
            return
        pid, start = status.get("supervisor"), status.get("supervisor_start")
        if not procs.is_same(pid, start, status.get("boot_id")):
            break
        if time.monotonic() > until:
            log.note(fd, f"supervisor {pid} did not end the task it was told to end; it is killed")
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(str(pid)), signal.SIGKILL)
        time.sleep(0.05)
    os.close(fd)
    end_orphan(layout, project, folder, lease, grace)


def end_orphan(layout: Layout, project: str, folder: str, lease: str, grace: float) -> None:
    """End an attempt whose supervisor is dead, and write its final status.

    Its processes: those that carry the lease, and the recorded group where pid, start time and boot
    id match.
    """
    fd = open_dir(layout.task(project, folder))
    watch = Watch(fd, grace)
    status, _ = read_status(fd)
    if status is None or status.get("lease") != lease or is_final(status):
        return
    watch.deaf = True
    try:
        saved = save_dead(layout, project, folder, status, watch)
        status["salvage"] = saved.where or status.get("salvage")
    except OSError as e:
        log.note(fd, f"salvage failed: {e}")
    pid, same_boot = status.get("pid"), status.get("boot_id") == procs.boot_id()
    group = pid if procs.is_same(pid, status.get("pid_start"), status.get("boot_id")) else None
    tree = Tree(group=group, below=None, lease=lease if same_boot else None)
    left = tree.end(watch, grace)
    if not try_lock(fd, 1.0) and not left:
        log.note(fd, "something that cannot be found still holds the task's lock")
    again, _ = read_status(fd)
    if again is None or again.get("lease") != lease or is_final(again):
        return
    status.update(
        status="failed",
        reason="killed",
        error="it was told to end; its supervisor was gone",
        completed_at=clock.iso(clock.now()),
        leftovers=left,
    )
    write_last_status(fd, status, 60.0)
    notify.tell(layout, project, folder)
