"""What is told about a task: the protocol's Task, from its files and its processes."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import log, procs
from dispatch_controller.fleet.wrapper.clock import now, parse_iso
from dispatch_controller.fleet.wrapper.layout import checked_code
from dispatch_controller.fleet.wrapper.measure import walk
from dispatch_controller.fleet.wrapper.taskdir import (
    is_final,
    is_locked,
    open_dir,
    read_small,
    read_status,
)

if TYPE_CHECKING:
    from typing import Any

    from dispatch_controller.fleet.wrapper.layout import Layout

_PROMPT = re.compile(
    r"(?:\[[yY]/[nN]\]|\([yY](?:es)?/[nN]o?\)|[Pp]ass(?:word|phrase)[^\n]{0,60}:"
    r"|[Pp]ress (?:any key|[Ee]nter)[^\n]{0,40}|[?:>$#❯»])\s*\Z"
)
_QUIET = 5.0
_MOST_FILES = 5000


class Reporter:
    """Describes tasks; processes are listed and a project's code is walked once per report."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._table: dict[int, procs.Process] | None = None
        self._newest: dict[str, float | None] = {}
        self._cpu_before: dict[tuple[str, str], float] = {}

    def fresh(self) -> None:
        """Forget what was seen: a new report begins."""
        self._table = None
        self._newest.clear()

    def task(self, project: str, folder: str, *, quick: bool = False) -> dict[str, Any] | None:
        """The Task of a folder; None when it has no status.json (nothing was started there).

        `quick` leaves out what it takes the list of processes and a walk to know.
        """
        path = self._layout.task(project, folder)
        try:
            fd = open_dir(path)
        except OSError:
            return None
        try:
            # The lock first: a status read while it is free cannot be overtaken by its holder.
            held = is_locked(fd)
            status, broken = read_status(fd)
            if status is None and not broken:
                return None
            task = self._describe(project, folder, path, fd, status, broken, held)
            if task["alive"] and not quick and not is_final(status):
                self._progress(task, path, fd)
            return task
        finally:
            os.close(fd)

    def _describe(
        self,
        project: str,
        folder: str,
        path: str,
        fd: int,
        status: dict[str, Any] | None,
        broken: bool,
        held: bool,
    ) -> dict[str, Any]:
        known: dict[str, Any] = status or {}
        alive = lives(known, lock_held=held)
        if status is not None and not alive and not is_final(status):
            status = lost(status)
        info = _stat(fd, "task.log")
        task = {
            "project": project,
            "folder": folder,
            "task_id": known.get("task_id"),
            "lease": known.get("lease"),
            "attempt": known.get("attempt"),
            "sequence": known.get("sequence"),
            "alive": alive,
            "status": status,
            "broken": broken,
            "cpu": None,
            "log_at": info.st_mtime if info else None,
            "log_size": info.st_size if info else 0,
            "files_at": None,
            "heartbeat_at": None,
            "waiting_input": False,
            "pgid": known.get("pid"),
            "log_file": path + "/task.log",
        }
        if not alive:
            self._cpu_before.pop((project, folder), None)
        return task

    def _progress(self, task: dict[str, Any], path: str, fd: int) -> None:
        beat = read_small(fd, "heartbeat")
        members = self._members(task["pgid"])
        cpu = sum(p.cpu for p in members) if members else None
        key = (task["project"], task["folder"])
        stands_still = cpu is not None and cpu == self._cpu_before.get(key)
        if cpu is not None:
            self._cpu_before[key] = cpu
        task["cpu"] = cpu
        task["heartbeat_at"] = parse_iso(beat.decode(errors="replace")) if beat else None
        task["files_at"] = self._files_at(task, path)
        if prompts(fd):
            reads = any(procs.reads_terminal(p.pid) for p in members)
            task["waiting_input"] = reads or stands_still

    def _members(self, pgid: object) -> list[procs.Process]:
        if not isinstance(pgid, int):
            return []
        if self._table is None:
            self._table = procs.table()
        return [p for p in self._table.values() if pgid in (p.pgid, p.session)]

    def _files_at(self, task: dict[str, Any], path: str) -> float | None:
        status = task["status"] or {}
        places = [path + "/output"]
        if status.get("git_mode"):
            places.append(path + "/repo")
        elif "code" in status:
            try:
                code = checked_code(status["code"])
                places.append(f"{self._layout.project(task['project'])}/{code}")
            except ValueError:
                pass
        times = [at for at in map(self._newest_in, places) if at is not None]
        return max(times, default=None)

    def _newest_in(self, root: str) -> float | None:
        if root not in self._newest:
            newest: float | None = None
            until = time.monotonic() + 0.2
            for number, (_, info) in enumerate(walk(root)):
                newest = max(newest or 0.0, info.st_mtime)
                if number > _MOST_FILES or time.monotonic() > until:
                    break
            self._newest[root] = newest
        return self._newest[root]


def prompts(fd: int) -> bool:
    """Whether a task's log ends in what looks like a prompt, and has been quiet since."""
    info = _stat(fd, "task.log")
    if info is None or now() - info.st_mtime < _QUIET:
        return False
    return _PROMPT.search(log.tail(fd, 400)) is not None


def lives(status: dict[str, Any], *, lock_held: bool) -> bool:
    """Whether a task is alive. The lock says so, but a final status outranks it, leftovers apart.

    Older wrappers hold no lock: for them the recorded process must still be there.
    """
    if is_final(status if "status" in status else None):
        return lock_held and bool(status.get("leftovers"))
    if "boot_id" in status or lock_held or not status:
        return lock_held
    pid = status.get("pid")
    return isinstance(pid, int) and pid > 1 and _exists(pid)


def lost(status: dict[str, Any]) -> dict[str, Any]:
    """The status of an attempt whose supervisor is gone and left no final one. Only told."""
    return {
        **status,
        "status": "failed",
        "reason": "supervisor_lost",
        "error": "the supervisor and the agent are gone and left no final status "
        "(killed, or the machine restarted)",
    }


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _stat(fd: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return None
