"""task.log and wrapper.log: writing the one, reading both."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import clock
from dispatch_controller.fleet.wrapper.taskdir import is_locked, open_dir, write_all

if TYPE_CHECKING:
    from typing import Any

NAMES = ("task.log", "wrapper.log")
_MOST = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def note(dir_fd: int, text: str) -> None:
    """Append a line to wrapper.log, which is only created when there is something to say."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open("wrapper.log", flags, 0o644, dir_fd=dir_fd)
    except OSError:
        return
    try:
        line = f"{clock.iso(clock.now())} {text.rstrip()}\n"
        write_all(fd, line.encode(errors="replace"))
    except OSError:
        return
    finally:
        os.close(fd)


def tail(dir_fd: int, size: int, name: str = "task.log") -> str:
    """The last `size` bytes of a log as text, "" where there is none."""
    try:
        fd = os.open(name, _READ, dir_fd=dir_fd)
    except OSError:
        return ""
    try:
        end = os.fstat(fd).st_size
        return os.pread(fd, size, max(0, end - size)).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def read_log(path: str, name: str, offset: int, limit: int) -> dict[str, Any]:
    """The result of the `log` verb. `offset` below 0 counts from the end; `next` continues it.

    Never through a link: the folder and the file are opened as what they are, or not at all.
    """
    try:
        folder = open_dir(path)
    except OSError:
        return {"offset": 0, "next": 0, "size": 0, "text": "", "alive": False}
    try:
        alive = is_locked(folder)
        size, start, raw = _piece(folder, name, offset, max(4, min(limit, _MOST)))
    finally:
        os.close(folder)
    return {
        "offset": start,
        "next": start + len(raw),
        "size": size,
        "text": raw.decode(errors="replace"),
        "alive": alive,
    }


def _piece(folder: int, name: str, offset: int, limit: int) -> tuple[int, int, bytes]:
    try:
        fd = os.open(name, _READ, dir_fd=folder)
    except OSError:
        return 0, 0, b""
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            return 0, 0, b""
        start = max(0, info.st_size + offset) if offset < 0 else min(offset, info.st_size)
        raw = os.pread(fd, limit, start)
    finally:
        os.close(fd)
    if offset < 0 and start:
        cut = next((n for n, byte in enumerate(raw[:4]) if byte & 0xC0 != 0x80), 0)
        start, raw = start + cut, raw[cut:]
    return info.st_size, start, raw[: len(raw) - _unfinished(raw)]


def _unfinished(raw: bytes) -> int:
    """Bytes at the end that begin a character without ending it (UTF-8)."""
    for back in range(1, min(4, len(raw)) + 1):
        byte = raw[-back]
        if byte & 0xC0 == 0xC0:
            needs = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if needs > back else 0
        if byte < 0x80:
            return 0
    return 0
