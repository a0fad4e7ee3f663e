"""Reads the answer of polled_scripts.COLLECT. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dispatch_controller.fleet.observation import instant

_DRIFT = 5.0
"""Seconds by which `ps` may tell the start of one process differently at another time."""


@dataclass(slots=True)
class Token:
    """What a start left: which attempt, and the process that became its wrapper."""

    lease: str
    attempt: int
    sequence: int
    pid: int
    since: float | None


@dataclass(slots=True)
class Process:
    pgid: int
    zombie: bool
    cpu: float
    since: float | None


@dataclass(slots=True)
class Folder:
    """A task's folder, as far as it was told."""

    files: dict[str, str] = field(default_factory=dict)
    stats: dict[str, tuple[float, int]] = field(default_factory=dict)
    current: Token | None = None
    acked: bool = False


@dataclass(slots=True)
class Listing:
    now: float
    folders: dict[tuple[str, str], Folder]
    processes: dict[int, Process]

    def tasks(self) -> Iterable[dict[str, Any]]:
        """Yield every task that is not acknowledged, in the form of the wrapper's protocol."""
        for (project, name), folder in sorted(self.folders.items()):
            token = folder.current
            if token is None and (folder.acked or not folder.files.keys() & {"status.json", "pid"}):
                continue
            yield self._task(project, name, folder, token)

    def _task(self, project: str, name: str, folder: Folder, token: Token | None) -> dict[str, Any]:
        status, broken = _status(folder)
        if (
            token is not None
            and status is not None
            and status.get("lease", token.lease)
            not in (
                token.lease,
                None,
                "",
            )
        ):
            status = None  # left by an earlier attempt; this one has not written its own yet
        if token is None:
            pid = _whole(folder.files.get("pid")) or _whole((status or {}).get("pid"))
            since = None
        else:
            pid, since = token.pid, token.since
        members = self._members(pid, since)
        log_at, log_size = folder.stats.get("task.log", (None, 0))
        return {
            "project": project,
            "folder": name,
            "task_id": None,
            "lease": token.lease if token else None,
            "attempt": token.attempt if token else None,
            "status": status,
            "broken": broken,
            "alive": bool(members),
            "pgid": pid,
            "cpu": sum(process.cpu for process in members) if members else None,
            "log_at": log_at,
            "log_size": log_size,
            "heartbeat_at": instant(folder.files.get("heartbeat", "").strip()),
            "log_file": f"{project}/tasks/{name}/task.log",
        }

    def _members(self, pid: int | None, since: float | None) -> list[Process]:
        """The living processes of the group of `pid`; none if that number is another's by now."""
        if pid is None:
            return []
        leader = self.processes.get(pid)
        then = leader.since if leader is not None else None
        if then is not None and since is not None and abs(then - since) > _DRIFT:
            return []
        return [
            process
            for number, process in self.processes.items()
            if (process.pgid == pid or number == pid) and not process.zombie
        ]


def parse_listing(text: str) -> Listing:
    """Read the lines before the closing one. Raises ValueError for what cannot be read."""
    listing = Listing(0.0, {}, {})
    content: list[str] = []
    files: dict[str, list[str]] = {}
    for line in text.split("\n"):
        kind, _, rest = line.partition(" ")
        if line.startswith("|"):
            content.append(line[1:])
        elif kind == "file":
            content = files[rest] = []
        elif kind == "now":
            listing.now = float(rest)
        elif kind == "stat":
            at, size, path = rest.split(" ", 2)
            found = _task_file(listing, path)
            if found is not None:
                found[0].stats[found[1]] = (float(at), int(size))
        elif kind == "process":
            _add_process(listing, rest)
    if not listing.processes:
        raise ValueError("ps told of no process at all")
    for path, lines in files.items():
        _add_file(listing, path, lines)
    for folder in listing.folders.values():
        if "status.json" in folder.stats:
            folder.files.setdefault("status.json", "")  # empty: awk has no line to tell
    return listing


def _add_file(listing: Listing, path: str, lines: list[str]) -> None:
    parts = path.split("/")
    if len(parts) == 7 and parts[1] == ".dispatch":
        _, _, _, _, project, name, kind = parts
        folder = listing.folders.setdefault((project, name), Folder())
        if kind == "acked":
            folder.acked = True
        else:
            folder.current = _token(lines)
        return
    found = _task_file(listing, path)
    if found is not None:
        found[0].files[found[1]] = "\n".join(lines)


def _task_file(listing: Listing, path: str) -> tuple[Folder, str] | None:
    parts = path.split("/")
    if len(parts) != 5 or parts[2] != "tasks":
        return None
    _, project, _, name, file = parts
    return listing.folders.setdefault((project, name), Folder()), file


def _token(lines: list[str]) -> Token:
    _, lease, attempt, sequence, pid = lines[0].split(" ")
    since = _since(lines[1].split()) if len(lines) > 1 else None
    return Token(lease, int(attempt), int(sequence), int(pid), since)


def _add_process(listing: Listing, line: str) -> None:
    pid, pgid, stat, cpu, *since = line.split()
    zombie = stat.startswith("Z")
    listing.processes[int(pid)] = Process(int(pgid), zombie, _seconds(cpu), _since(since))


def _since(words: list[str]) -> float | None:
    try:
        moment = datetime.strptime(" ".join(words), "%a %b %d %H:%M:%S %Y")  # noqa: DTZ007
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC).timestamp()


def _seconds(text: str) -> float:
    """CPU time as `ps` has it: [DD-]HH:MM:SS, or MM:SS.cc."""
    days, _, clock = text.rpartition("-")
    total = 0.0
    for part in clock.split(":"):
        total = total * 60 + float(part)
    return total + 86400 * int(days or 0)


def _status(folder: Folder) -> tuple[dict[str, Any] | None, bool]:
    text = folder.files.get("status.json")
    if text is None:
        return None, False
    try:
        value = json.loads(text)
    except ValueError:
        return None, True
    return (value, False) if isinstance(value, dict) else (None, True)


def _whole(value: object) -> int | None:
    try:
        return int(str(value).strip())
    except ValueError:
        return None
