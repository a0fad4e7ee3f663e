"""A task's folder: its lock, its status.json, and writing without half files.

The lock is flock on the folder itself. Whoever holds the descriptor (the supervisor, and the agent
that inherits it) keeps the task alive; neither a reused pid, a zombie nor a reboot can fake it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

FINAL = ("completed", "failed", "timeout")
_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_LARGEST_STATUS = 4 << 20


def open_dir(path: str) -> int:
    """Return a descriptor of a folder, never through a link. Raises OSError."""
    return os.open(path, _DIR)


def try_lock(fd: int, patience: float = 0.0) -> bool:
    """Take the lock on `fd`. A reader that only looks holds it for microseconds: `patience`."""
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                raise
        else:
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.002)


def is_locked(fd: int) -> bool:
    """Whether some process holds the lock. Looks by a shared lock, so lookers never collide."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno != errno.EWOULDBLOCK:
            raise
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def read_small(dir_fd: int, name: str, limit: int = 1 << 16) -> bytes | None:
    """Return a regular file's first `limit` bytes, None where there is no such file (or a link)."""
    try:
        fd = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd
        )
    except OSError:
        return None
    try:
        return os.read(fd, limit)
    except OSError:
        return None
    finally:
        os.close(fd)


def read_status(dir_fd: int) -> tuple[dict[str, Any] | None, bool]:
    """Return (status.json or None, broken). Half-written, no JSON or no object: broken."""
    raw = read_small(dir_fd, "status.json", _LARGEST_STATUS)
    if raw is None:
        return None, False
    try:
        status = json.loads(raw)
    except ValueError:
        return None, True
    if not isinstance(status, dict) or not isinstance(status.get("status"), str):
        return None, True
    return status, False


def is_final(status: dict[str, Any] | None) -> bool:
    """Whether a status says that the attempt is over."""
    return status is not None and status["status"] in FINAL


def write_file(dir_fd: int, name: str, content: bytes) -> None:
    """Write a file beside its place and rename it there. Raises OSError."""
    beside = "." + name + ".new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(beside, flags, 0o644, dir_fd=dir_fd)
    try:
        write_all(fd, content)
    finally:
        os.close(fd)
    os.rename(beside, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def write_all(fd: int, content: bytes) -> None:
    """Write everything, however small the pieces. Raises OSError."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def write_status(dir_fd: int, status: dict[str, Any]) -> None:
    """Write status.json atomically. Raises OSError."""
    write_file(dir_fd, "status.json", encode(status))


def encode(value: object) -> bytes:
    """One line of JSON; what came from file names as lone surrogates stays readable as escapes."""
    return _ENCODER.encode(value).encode()


def write_last_status(dir_fd: int, status: dict[str, Any], patience: float) -> bool:
    """Write a final status though the disk may be full; False when that failed for `patience` s.

    Where no new file fits, the running status is written over in its place, shortened: its block
    is there already, and a reader that meets it half-written reports `broken`, not an end.
    """
    until = time.monotonic() + patience
    while True:
        try:
            write_status(dir_fd, status)
        except OSError:
            if _overwrite_status(dir_fd, status):
                return True
        else:
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(1)


def _overwrite_status(dir_fd: int, status: dict[str, Any]) -> bool:
    short = dict(
        status, outside=status.get("outside", [])[:20], error=(status["error"] or "")[:200]
    )
    content = encode(short)
    try:
        fd = os.open("status.json", os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError:
        return False
    try:
        write_all(fd, content)
        os.ftruncate(fd, len(content))
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
