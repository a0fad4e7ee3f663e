"""Supervisors that stay for another attempt: forking Python costs more than a short task does.

One supervises one attempt at a time. It stays only where nothing can be left that means the last
one: its final status is on disk, no child lives, nobody told it to end. `serve` then hands it the
next order through a socket, with the task's folder and serve.lock as descriptors; when `serve` is
gone or lets it go, it ends.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import traceback
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import log
from dispatch_controller.fleet.wrapper.launch import Launch, Post
from dispatch_controller.fleet.wrapper.order import Order
from dispatch_controller.fleet.wrapper.supervisor import supervise
from dispatch_controller.fleet.wrapper.taskdir import encode

if TYPE_CHECKING:
    from typing import Any

IDLE = "idle"
QUIET = 5.0
"""Seconds without anything to do after which those who wait are let go."""
_MOST = 64
_LONGEST = 1 << 15  # the socket takes this at once, whether or not it is being read


class Crew:
    """The supervisors of one `serve`, by pid; those that wait for an attempt among them."""

    def __init__(self) -> None:
        self._channels: dict[int, socket.socket] = {}
        self._waiting: list[int] = []

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    def join(self, pid: int, channel: socket.socket) -> None:
        """A supervisor was forked; it works."""
        self._channels[pid] = channel

    def wait(self, pid: int) -> None:
        """A supervisor said that it is done and stays."""
        if pid not in self._channels:
            return
        self._waiting.append(pid)
        if len(self._waiting) > _MOST:
            self.leave(self._waiting[0])

    def leave(self, pid: int) -> None:
        """A supervisor ended, or is let go: the end of its channel ends it."""
        if pid in self._waiting:
            self._waiting.remove(pid)
        channel = self._channels.pop(pid, None)
        if channel is not None:
            channel.close()

    def dismiss(self) -> None:
        """Let everybody go who waits."""
        for pid in list(self._waiting):
            self.leave(pid)

    def hand(self, line: bytes, launch: Launch, hold: int) -> int | None:
        """Hand an attempt to one who waits; returns its pid, None where one must be forked.

        `line` is the request that was read, `hold` serve.lock.
        """
        if len(line) > _LONGEST:
            return None
        header = {
            "argv": launch.argv, "fresh": launch.fresh, "locked": launch.locked,
            "oom_kills": launch.oom_kills,
        }  # fmt: skip
        message = encode(header) + b"\n" + line + b"\n"
        while self._waiting:
            pid = self._waiting.pop()
            try:
                socket.send_fds(self._channels[pid], [message], [launch.dir_fd, hold])
            except OSError:
                self.leave(pid)  # it was ended while it waited
            else:
                return pid
        return None


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a supervisor's channel: for `serve`, and for the one that will be forked."""
    ours, theirs = socket.socketpair()
    with contextlib.suppress(OSError):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * _LONGEST)
    return ours, theirs


def work(launch: Launch, number: int, tell: int, hold: int, channel: socket.socket) -> None:
    """Supervise one attempt after the other; `number` and `tell` as in Post."""
    while _supervise(launch, Post(tell, number), hold):
        os.close(launch.dir_fd)
        gc.enable()  # one short attempt makes no garbage worth a look; many do
        os.write(tell, encode([os.getpid(), IDLE, "", ""]) + b"\n")
        received = _receive(channel)
        if received is None:
            return
        header, request, (dir_fd, hold) = received
        number = request["id"]
        launch = launch.another(Order(request["order"]), dir_fd, **header)


def _supervise(launch: Launch, post: Post, hold: int) -> bool:
    try:
        return supervise(launch, post, hold)
    except BaseException:
        log.note(launch.dir_fd, traceback.format_exc())
        raise


def _receive(channel: socket.socket) -> tuple[dict[str, Any], dict[str, Any], list[int]] | None:
    raw, fds = b"", []
    while raw.count(b"\n") < 2:
        piece, received, _, _ = socket.recv_fds(channel, 4 * _LONGEST, 2)
        if not piece:
            return None
        raw += piece
        fds += received
    for fd in fds:
        os.set_inheritable(fd, False)
    header, line = raw.splitlines()
    return json.loads(header), json.loads(line), fds
