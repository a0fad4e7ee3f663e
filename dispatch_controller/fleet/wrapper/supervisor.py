"""The supervisor: one process per attempt, from the lock to the final status.

Forked by `serve` (which pays no interpreter start), by the one-shot `start`, or the process itself
where the wrapper is called as older ones are. It outlives the channel, `serve` and the controller.
"""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import clock, log, notify
from dispatch_controller.fleet.wrapper.agent import close_all_but
from dispatch_controller.fleet.wrapper.attempt import Attempt, Refused
from dispatch_controller.fleet.wrapper.ending import become_subreaper
from dispatch_controller.fleet.wrapper.previous import retire, wrest_lock
from dispatch_controller.fleet.wrapper.taskdir import read_small, write_last_status
from dispatch_controller.fleet.wrapper.watch import END, Watch

if TYPE_CHECKING:
    from typing import Any

    from dispatch_controller.fleet.wrapper.launch import Launch, Post

_FULL_DISK_PATIENCE = 600.0


def detach(keep: list[int]) -> None:
    """Leave the session and the streams of whoever forked us: they hold its channel open."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    close_all_but(keep)


def supervise(launch: Launch, post: Post, hold: int) -> bool:
    """Run one attempt to its final status. Returns when that is written: whether this process may
    supervise another one, since nothing is left that could be meant for this one.

    `hold` (serve.lock, or -1) is closed once the attempt is on disk: until then a newer `serve`
    waits, and then it sees the attempt.
    """
    watch = Watch(launch.dir_fd, launch.order.grace)
    become_subreaper()
    if not launch.locked and not wrest_lock(launch, watch):
        post.tell("refused", "alive", "a process of an earlier attempt still holds the task")
        return False
    if not launch.fresh:
        retire(launch, watch)
    attempt = Attempt(launch, watch, post, hold)
    try:
        final = attempt.run()
    except Refused as e:
        post.tell("refused", e.reason, str(e))
        return False
    except BaseException as e:  # noqa: BLE001 - whatever happened, a final status is written
        log.note(launch.dir_fd, traceback.format_exc())
        if not attempt.committed:
            post.tell("refused", "wrapper_error", f"{type(e).__name__}: {e}")
            return False
        attempt.end_tree()
        final = attempt.failed("wrapper_error", f"{type(e).__name__}: {e}"[:1000])
    written = write_final(launch, final)
    post.tell("running")
    # Whoever tells a supervisor to end writes end.json and then looks whether the status is final
    # (control.kill): one of the two sees the other, so the signal never meets a later attempt.
    told = read_small(launch.dir_fd, END) is not None
    return watch.close() and written and not told and not final["leftovers"]


def write_final(launch: Launch, status: dict[str, Any]) -> bool:
    """Write the final status and tell whichever `serve` lives. False when the disk is full."""
    status["completed_at"] = clock.iso(clock.now())
    written = write_last_status(launch.dir_fd, status, _FULL_DISK_PATIENCE)
    if not written:
        log.note(launch.dir_fd, "the final status could not be written: the disk is full")
    notify.tell(launch.layout, launch.order.project, launch.order.folder)
    return written
