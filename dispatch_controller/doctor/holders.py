"""Who else has dispatch.db open, and which of the former services are loaded."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dispatch_controller.doctor.finding import Finding, error, warning
from dispatch_controller.home import Home
from dispatch_controller.service import former
from dispatch_controller.service.service import ServiceError

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Holder:
    pid: int
    command: str
    """Its command line, or its name where that cannot be read."""


Looker = Callable[[list[Path]], Iterable[Holder]]


def check_holders(home: Home, ours: Collection[int]) -> Iterator[Finding]:
    """Other processes that hold the database; `ours` are the pids that may."""
    for holder in holders(home.database):
        if holder.pid in ours:
            continue
        subject = f"pid {holder.pid}"
        label = former.named_in(holder.command)
        what = f"holds {home.database.name} open: {holder.command}"
        if label is not None:
            fix = _unload(label, holder.pid)
            yield error("processes", subject, f"{label} {what}", fix)
        else:
            fix = f"end it if it is not meant to be there: kill {holder.pid}"
            yield warning("processes", subject, what, fix)


def check_former_services() -> Iterator[Finding]:
    """The services that the controller replaces, where launchd still holds them."""
    if shutil.which("launchctl") is None:
        return
    try:
        for service in former.loaded(os.getuid()):
            text = f"is loaded ({service.domain}) and does the controller's work a second time"
            yield error("processes", service.label, text, service.unload)
    except ServiceError as failed:
        yield warning("processes", "launchctl", str(failed), "try it by hand: launchctl list")


def _unload(label: str, pid: int) -> str:
    if sys.platform == "darwin":
        return former.Loaded(label, f"gui/{os.getuid()}").unload
    return f"stop it where it is started from, then: kill {pid}"


def holders(database: Path) -> list[Holder]:
    """Return the processes (this one left out) that have the database or its WAL open.

    Of processes of other users nothing is known without privileges.
    """
    files = [database.with_name(database.name + tail) for tail in ("", "-wal", "-shm")]
    there = [path for path in files if path.exists()]
    if not there:
        return []
    look: Looker = _from_proc if (_PROC / "self/fd").is_dir() else _from_lsof
    return [holder for holder in look(there) if holder.pid != os.getpid()]


def _from_proc(files: list[Path]) -> Iterator[Holder]:
    wanted = {(status.st_dev, status.st_ino) for status in (path.stat() for path in files)}
    pids = sorted(int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    for pid in pids:
        if _opens(pid, wanted):
            yield Holder(pid, _command(pid))


def _opens(pid: int, wanted: set[tuple[int, int]]) -> bool:
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - names only, and many of them
    except OSError:
        return False
    for name in descriptors:
        try:
            status = os.stat(f"/proc/{pid}/fd/{name}")  # noqa: PTH116
        except OSError:
            continue
        if (status.st_dev, status.st_ino) in wanted:
            return True
    return False


def _command(pid: int) -> str:
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return "(ended)"
    return b" ".join(word for word in words if word).decode(errors="replace") or "(no command)"


def _from_lsof(files: list[Path]) -> list[Holder]:
    """macOS: lsof's -F output, a field a line (man lsof)."""
    try:
        listed = subprocess.run(
            ["lsof", "-F", "p", "--", *map(str, files)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        ).stdout
        pids = sorted({int(pid) for pid in re.findall(r"^p(\d+)$", listed, re.MULTILINE)})
        return [Holder(pid, _ps(pid)) for pid in pids]
    except (OSError, subprocess.TimeoutExpired):
        return []


def _ps(pid: int) -> str:
    argv = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    return done.stdout.strip() or "(ended)"
