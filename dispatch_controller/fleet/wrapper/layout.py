"""Where things are on a node, and which names may become part of a path.

Nothing from an order is joined to a path before it went through `checked_name`.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

STATE = ".dispatch"
_OWNER = re.compile(r"[0-9a-f]{16}\Z")
_CODE = re.compile(r"code(-[0-9A-Za-z]{1,64})?\Z")
_BAD = re.compile(r"[/\\\x00-\x20\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class BadName(ValueError):
    """A value of an order that cannot be a name on this node; the text says which and why."""


def checked_name(value: object, what: str) -> str:
    """Return `value` when it is safe as one component of a path. Raises BadName."""
    if not isinstance(value, str) or not value:
        raise BadName(f"{what}: a non-empty text is needed")
    if value[0] in ".-~" or _BAD.search(value):
        raise BadName(f"{what}: {value!r} cannot be the name of a folder")
    if len(value.encode()) > 200:
        raise BadName(f"{what}: longer than 200 bytes")
    return value


def checked_lease(value: object) -> str:
    """Return a lease that is safe as one word of a line and of an environment. Raises BadName."""
    if not isinstance(value, str) or not value:
        raise BadName("lease: a non-empty text is needed")
    if _BAD.sub("", value.replace("/", "")) != value or len(value.encode()) > 300:
        raise BadName(f"lease: {value[:80]!r} holds blanks, control characters or slashes")
    return value


def checked_code(value: object) -> str:
    """Return the name of a project's folder, `code` or `code-<hash>`. Raises BadName."""
    if not isinstance(value, str) or not _CODE.match(value):
        raise BadName(f"code: {value!r} is neither `code` nor `code-<hash>`")
    return value


class Layout:
    """The paths under one ROOT, for one owner (the home's 16 hex digits, `""` for none)."""

    def __init__(self, root: str, owner: str) -> None:
        if owner and not _OWNER.match(owner):
            raise BadName(f"owner: {owner!r} is not 16 hex digits")
        self.root = os.path.abspath(os.path.expanduser(root))
        self.owner = owner
        self.state = os.path.join(self.root, STATE, owner or "nobody")

    def make(self) -> None:
        """Create the owner's folder of state."""
        os.makedirs(self.state, exist_ok=True)

    def state_file(self, name: str) -> str:
        """Path of a file of this owner's state: serve.lock, serve.next, notify, voids, acks."""
        return self.state + "/" + name

    def project(self, project: str) -> str:
        """The project's folder. `project` was checked."""
        return self.root + "/" + project

    def tasks(self, project: str) -> str:
        """The folder of the project's tasks; its flock is the decision lock (fence.py)."""
        return self.root + "/" + project + "/tasks"

    def task(self, project: str, folder: str) -> str:
        """The task's folder. Both were checked."""
        return self.root + "/" + project + "/tasks/" + folder

    def all_tasks(self) -> Iterator[tuple[str, str]]:
        """(project, folder) of every folder of a task on this node, sorted."""
        for project in _folders(self.root):
            for folder in _folders(self.tasks(project)):
                yield project, folder


def _folders(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(e.name for e in entries if _is_task_name(e.name) and _is_dir(e))
    except OSError:
        return []


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _is_task_name(name: str) -> bool:
    try:
        checked_name(name, "folder")
    except BadName:
        return False
    return True
