"""What an attempt changed, outside git mode: files newer than its start, and names that vanished.

Inside git mode git itself is asked (git.py). Both give `Changes`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SKIPPED = frozenset(
    [".git", "node_modules", ".venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"]
)
_LARGEST_TEXT = 2 << 20


class Changes:
    """What changed. Paths of the code are relative to it; those of output/ begin with `output/`."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        """Changed files that exist: relative path to absolute path."""
        self.removed: list[str] = []
        self.loc_added = 0
        self.loc_removed = 0
        self.artifact_hash: str | None = None
        self.new_text: Callable[[], Iterator[tuple[str, str]]] = self._texts
        """Gives (path, text that is new or changed) for gates that read."""

    @property
    def any(self) -> bool:
        return bool(self.files or self.removed)

    @property
    def names(self) -> list[str]:
        """All changed paths, sorted."""
        return sorted({*self.files, *self.removed})

    def code_names(self) -> list[str]:
        """Changed paths of the code, which `modifies` speaks of."""
        return [name for name in self.names if not name.startswith("output/")]

    def _texts(self) -> Iterator[tuple[str, str]]:
        for name, path in sorted(self.files.items()):
            text = read_text(path)
            if text is not None:
                yield name, text


class Trees:
    """The two folders an agent works in outside git mode, as they were at its start."""

    def __init__(self, task_dir: str, code: str, since_ns: int) -> None:
        self._roots = [("output/", task_dir + "/output"), ("", code)]
        self._since = since_ns
        self._before: set[str] | None = None

    def remember(self) -> None:
        """Note the names that exist, so that a removed file counts as a change."""
        self._before = {name for name, _, _ in self._walk()}

    def changes(self) -> Changes:
        """Compare with the start.

        A file is new when its content or its inode is (ctime tells mv and cp -p).
        """
        changes = Changes()
        digest = hashlib.sha256()
        now = set()
        for name, path, info in self._walk():
            now.add(name)
            if max(info.st_mtime_ns, info.st_ctime_ns) < self._since:
                continue
            changes.files[name] = path
            if self._before is not None and name not in self._before:
                changes.loc_added += _lines(path)
        if self._before is not None:
            changes.removed = sorted(self._before - now)
        for name in changes.names:
            digest.update(os.fsencode(name) + b"\0" + _digest(changes.files.get(name)))
        changes.artifact_hash = digest.hexdigest() if changes.any else None
        return changes

    def _walk(self) -> Iterator[tuple[str, str, os.stat_result]]:
        for prefix, root in self._roots:
            for path, info in walk(root):
                yield prefix + os.path.relpath(path, root), path, info


def walk(root: str) -> Iterator[tuple[str, os.stat_result]]:
    """Every regular file and link below a folder, without following links or what SKIPPED names."""
    ahead = [root]
    while ahead:
        try:
            with os.scandir(ahead.pop()) as entries:
                found = list(entries)
        except OSError:
            continue
        for entry in found:
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(info.st_mode):
                if entry.name not in SKIPPED:
                    ahead.append(entry.path)
            elif stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode):
                yield entry.path, info


def read_text(path: str) -> str | None:
    """A file's text; None for links, binary files and those over 2 MiB."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        raw = file.read(_LARGEST_TEXT + 1)
    if len(raw) > _LARGEST_TEXT or b"\0" in raw[:8192]:
        return None
    return raw.decode(errors="replace")


def _lines(path: str) -> int:
    text = read_text(path)
    return 0 if text is None else len(text.splitlines())


def _digest(path: str | None) -> bytes:
    if path is None:
        return b"removed"
    digest = hashlib.sha256()
    try:
        if os.path.islink(path):
            return b"link" + os.fsencode(os.readlink(path))
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError:
        return b"unreadable"
    return digest.digest()
