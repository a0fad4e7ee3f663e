"""Ids of tasks and projects, and the folder and branch names made from them (specs.md)."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
"""What a spec may call its task, its project and its executor."""
RULE = "an ASCII letter or digit, then letters, digits, '.', '_' or '-', 128 characters at most"
"""ID in words."""

FOLDER_LIMIT = 100
"""Characters of a folder name at most."""

_HASH_DIGITS = 12
_NAMED_BY_HASH = re.compile(rf"--[0-9A-Fa-f]{{{_HASH_DIGITS}}}\Z", re.ASCII)
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9._-]", re.ASCII)
_NOT_IN_FOLDERS = re.compile(r"[^A-Za-z0-9_-]+", re.ASCII)
_SHOWN = 60
_LISTED = 8
"""Ids of a cycle or of candidates that a message names."""


def problem(text: str) -> str | None:
    """Return why `text` cannot be an id, in words a person can act on, or None if it can."""
    if ID.fullmatch(text):
        return None
    if not text:
        return "it is empty"
    if len(text) > 128:
        return f"it has {len(text)} characters; at most 128 are allowed"
    odd = _NOT_ALLOWED.search(text)
    if odd is None:
        return f"it starts with {text[0]!r}; an id starts with an ASCII letter or digit"
    character = odd.group()
    name = unicodedata.name(character, "a character without a name")
    looks = " (it may look like an ASCII letter)" if character.isalpha() else ""
    return (
        f"character {odd.start() + 1} is {name} U+{ord(character):04X}{looks}; "
        "allowed are ASCII letters, digits, '.', '_' and '-'"
    )


def registered_problem(text: str) -> str | None:
    """As `problem`, of an id that a task may be registered under: `<id>@<project>` too."""
    own, _, project = text.partition("@")
    return problem(own) or (problem(project) if "@" in text else None)


def shown(text: str) -> str:
    """Return `text` for a message: quoted, ASCII only, cut after 60 characters."""
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def listed(names: Sequence[str], joint: str = ", ") -> str:
    """Return the names for a message; of more than 8 the first ones and the last."""
    if len(names) <= _LISTED:
        return joint.join(names)
    return joint.join([*names[: _LISTED - 1], f"({len(names) - _LISTED} more)", names[-1]])


def qualified(task_id: str, project: str) -> str:
    """Return the id a task is registered under when another task already has its own."""
    return f"{task_id}@{project}"


def written(registered: str, project: str) -> str:
    """Return the id as the project's spec file writes it (the inverse of `qualified`)."""
    return registered.removesuffix(f"@{project}") if "@" in registered else registered


def folder_name(task_id: str) -> str:
    """Return the name of a task's folder, and of its part of a branch name.

    The id itself wherever that is at most 100 characters that git accepts in a ref; otherwise
    what can be kept of it, `--`, and 12 hex digits of its SHA-256. Any string is taken, since
    other programs write rows too. Two ids never share a name: one that ends like a hashed name
    is hashed as well. Ids that differ only by case share a folder on some file systems, so
    registration never gives two tasks of a project such ids (see `registration.plan`).
    """
    if _stands_as_it_is(task_id):
        return task_id
    digest = hashlib.sha256(task_id.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
    room = FOLDER_LIMIT - _HASH_DIGITS - 2
    kept = _NOT_IN_FOLDERS.sub("-", task_id[:room]).strip("-_")
    return f"{kept or 'task'}--{digest}"


def branch_name(project: str, task_id: str, node: str, attempt: int) -> str:
    """Return the branch that an attempt pushes its work to (nodes.md, The wrapper).

    The attempt's number is in it from the second on: a node that was cut off cannot know that its
    lease has died, and must not push over what came later.
    """
    again = "" if attempt < 2 else f"-{attempt}"
    return f"task/{project}-{folder_name(task_id)}-{node}{again}"


def branch_again(branch: str, sequence: int) -> str:
    """Return where the wrapper pushes to when `branch` is taken: attempts restart at 1 with the
    operator's retry, and the branch of an earlier attempt 1 is never pushed over."""
    return f"{branch}-s{sequence}"


def _stands_as_it_is(task_id: str) -> bool:
    return (
        ID.fullmatch(task_id) is not None
        and len(task_id) <= FOLDER_LIMIT
        and ".." not in task_id
        and not task_id.lower().endswith((".", ".lock"))
        and not _NAMED_BY_HASH.search(task_id)
    )
