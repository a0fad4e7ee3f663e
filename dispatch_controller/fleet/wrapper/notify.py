"""The FIFO by which a supervisor tells whichever `serve` lives that a status.json changed."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatch_controller.fleet.wrapper.layout import Layout


def tell(layout: Layout, project: str, folder: str) -> None:
    """Write `<project>/<folder>`. Nobody listening, or a full pipe: a `collect` will find it."""
    try:
        fd = os.open(layout.state_file("notify"), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.write(fd, f"{project}/{folder}\n".encode())
    except OSError:
        return
    finally:
        os.close(fd)


def listen(layout: Layout) -> int:
    """Return a descriptor to read the lines from. Raises OSError.

    Opened for writing too, so that it never reads end of file when the last supervisor closes.
    """
    path = layout.state_file("notify")
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        if not stat.S_ISFIFO(os.lstat(path).st_mode):
            os.unlink(path)
            os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
