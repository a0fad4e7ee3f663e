"""The home folder: where things lie, whose it is, and that only one controller uses it.

Layout: operations.md, "Settings". Blocking, short calls; used at start, at stop and by commands.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType


class HomeError(Exception):
    """The home cannot be used; the text names the file and what to do."""


_ADVICE = {
    errno.EROFS: "its disk is mounted read-only; mount it writable",
    errno.EACCES: "give it to this user",
    errno.EPERM: "give it to this user",
    errno.ENOSPC: "make room on its disk",
    errno.EDQUOT: "make room in this user's quota",
    errno.ENOTDIR: "a file is in the place of a folder; move it away",
    errno.EEXIST: "a file is in the place of a folder; move it away",
}


def unusable(path: Path, error: OSError) -> HomeError:
    """Return the error for a file of a home that could not be made, read or written."""
    advice = _ADVICE.get(error.errno or 0, "mend that")
    return HomeError(
        f"{error.filename or path}: {error.strerror or error}: {advice}, or take another folder"
    )


class HomeInUse(HomeError):
    """Another controller runs on this home. `pid` is its process id, None if not known."""

    def __init__(self, root: Path, pid: int | None) -> None:
        who = f"pid {pid}" if pid else "pid not known"
        super().__init__(
            f"another controller ({who}) already runs on {root}; stop it first, "
            "or give this one its own folder with --home"
        )
        self.pid = pid


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below DISPATCH_HOME."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "dispatch.db"

    @property
    def nodes(self) -> Path:
        return self.root / "nodes.json"

    @property
    def projects(self) -> Path:
        return self.root / "projects.json"

    @property
    def settings(self) -> Path:
        return self.root / "dispatch.toml"

    @property
    def controller(self) -> Path:
        return self.root / "controller.json"

    @property
    def lock(self) -> Path:
        return self.root / "controller.lock"

    @property
    def owner(self) -> Path:
        return self.root / "owner"

    @property
    def alerts(self) -> Path:
        return self.root / "guardian_alerts"

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    @property
    def repos(self) -> Path:
        return self.root / "repos"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def prepare(self) -> None:
        """Make the folders that are missing; a new home is open to its user alone.

        Raises HomeError.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.alerts, self.snapshots, self.logs):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise unusable(self.root, error) from error


class HomeLock:
    """Holds the home for this process until closed (or the process ends, however it does)."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> HomeLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def lock_home(home: Home) -> HomeLock:
    """Take the home for this process and write its pid beside the lock.

    Raises HomeInUse with the holder's pid, or HomeError. The kernel drops the lock with the
    process, so that nothing is left to clean up after kill -9; children do not inherit it.
    """
    try:
        descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(home.lock, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        held = error.errno in (errno.EAGAIN, errno.EACCES)
        text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() if held else ""
        os.close(descriptor)
        if held:
            raise HomeInUse(home.root, int(text) if text.isdigit() else None) from None
        raise unusable(home.lock, error) from error
    return HomeLock(descriptor)


@dataclass(frozen=True, slots=True)
class Controller:
    """controller.json: where the running controller is found."""

    pid: int
    url: str
    started_at: str
    """ISO 8601 UTC."""
    version: str


def write_controller(home: Home, controller: Controller) -> None:
    """Write controller.json beside its place, then rename it there. Raises OSError."""
    beside = home.controller.with_name(f".controller.json.{controller.pid}")
    beside.write_text(json.dumps(asdict(controller)) + "\n", "utf-8")
    beside.replace(home.controller)


def read_controller(home: Home) -> Controller | None:
    """Return what the last started controller wrote, None if there is none.

    It may be left over from a controller that was killed. Raises HomeError when unreadable.
    """
    try:
        content = json.loads(home.controller.read_text("utf-8"))
        return Controller(
            int(content["pid"]),
            str(content["url"]),
            str(content["started_at"]),
            str(content["version"]),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unusable(home.controller, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise HomeError(
            f"{home.controller} is damaged ({error!r}); restart the controller, or use --url"
        ) from error


def remove_controller(home: Home) -> None:
    """Remove controller.json at the end of a clean stop, if it is this process's own."""
    try:
        current = read_controller(home)
    except HomeError:
        return
    if current is not None and current.pid == os.getpid():
        home.controller.unlink(missing_ok=True)


def owner_id(home: Home) -> str:
    """Return the home's id, 16 hex digits, made at the first call and kept in `<home>/owner`.

    Wrappers keep it with every task, so that two homes can share a machine. Raises HomeError.
    """
    try:
        if not home.owner.exists():
            _publish(home.owner, secrets.token_hex(8) + "\n")
        owner = home.owner.read_text("ascii").strip()
    except OSError as error:
        raise unusable(home.owner, error) from error
    except UnicodeDecodeError:
        owner = ""
    if not re.fullmatch(r"[0-9a-f]{16}", owner):
        raise HomeError(
            f"{home.owner} holds no id of 16 hex digits; restore it from a backup, since running "
            "tasks carry it, or remove it when nothing runs"
        )
    return owner


def _publish(path: Path, content: str) -> None:
    """Make `path` with `content`, whole or not at all; one that exists meanwhile is kept."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w", encoding="ascii") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(beside, path)
    except FileExistsError:
        pass
    finally:
        beside.unlink()
