"""Started at most once per lease: the decision lock, voided leases, and who may start.

An attempt begins to exist when the supervisor writes its first status.json. It does so holding the
decision lock (flock on ROOT/<project>/tasks) shared, after it looked whether its lease was voided
or its `serve` superseded; the agent is let go only afterwards. `void` holds the lock exclusively.
So one of the two comes first, whatever is still in a pipe, and the second one sees it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper.journal import Journal
from dispatch_controller.fleet.wrapper.taskdir import open_dir

if TYPE_CHECKING:
    from types import TracebackType

    from dispatch_controller.fleet.wrapper.layout import Layout

PATIENCE = 10.0


class Busy(Exception):
    """The decision lock was held for longer than any decision takes."""


class Decision:
    """The decision lock of a project, as a context. Raises Busy after PATIENCE seconds."""

    def __init__(self, layout: Layout, project: str, *, shared: bool) -> None:
        self._path = layout.tasks(project)
        self._how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB

    def __enter__(self) -> None:
        self._fd = open_dir(self._path)
        until = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(self._fd, self._how)
            except OSError as e:
                if e.errno != errno.EWOULDBLOCK or time.monotonic() >= until:
                    os.close(self._fd)
                    raise Busy(f"{self._path}: another decision holds its lock") from e
            else:
                return
            time.sleep(0.0005)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)


class Fence:
    """What this owner has voided and acknowledged on this node."""

    def __init__(self, layout: Layout) -> None:
        self.voids = Journal(layout.state_file("voids"))
        self.acks = Journal(layout.state_file("acks"))


def word(project: str, folder: str, lease: str) -> str:
    """A task's lease as one line of a journal; all three were checked."""
    return f"{project}/{folder} {lease}"
