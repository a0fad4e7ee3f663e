"""nodes.json and projects.json, read entry by entry (nodes.md, "nodes.json and projects.json").

An entry that is wrong is reported with file, entry and key, and the other entries still load.
Unknown keys are kept in `model_extra`. Blocking: call it through run_sync.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from dispatch_controller.settings_sections import Generator

_NAME = r"^[^\s/:\x00-\x1f]+$"
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=_NAME)]
POLLS = "poll"
"""`worker_url` of a node whose worker only polls (docs/workers.md)."""
_WORKER_URL = r"^(poll|https?://[^\s/?#@]+/?)$"
WorkerUrl = Annotated[str, StringConstraints(max_length=500, pattern=_WORKER_URL)]
_WORDS = {
    _NAME: "must have no space, '/', ':' or control character",
    _WORKER_URL: f'must be "{POLLS}", or http://HOST:PORT (or https) without a path',
}
"""What the patterns mean, for people."""
Gate = Literal["exit", "changed", "conflict_markers", "verify", "min_duration", "no_todo"]
DEFAULT_GATES: tuple[Gate, ...] = ("exit", "changed", "conflict_markers", "verify")


class _Entry(BaseModel):
    # Strict: "4" for a number is a mistake that is better told than guessed away.
    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class NodeEntry(_Entry):
    """A node of nodes.json. Defaults are those of the table nodes.

    `model_fields_set` says which keys the file really has.
    """

    name: Name
    ssh_host: str | None = None
    slots: Annotated[int, Field(ge=0)] = 8
    api_mode: str = "direct"
    executor: str = "glm"
    priority: int = 2
    work_dir: Annotated[str, Field(min_length=1)] = "~/dispatch"
    worker_url: WorkerUrl | None = None
    """Where its HTTP worker listens; or POLLS."""


class ProjectFactory(_Entry):
    """What a project wants of the factory other than the settings say (docs/factory.md)."""

    enabled: bool = True
    generator: Generator | None = None
    dry_run: bool | None = None
    per_day: Annotated[int, Field(ge=0)] | None = None
    iterate_tasks: Annotated[int, Field(ge=1)] | None = None
    iterate_completed: Annotated[float, Field(ge=0, le=1, strict=False)] | None = None
    iterate_pause: Annotated[float, Field(gt=0, strict=False)] | None = None
    """Seconds."""
    executor: str | None = None
    """Of its generated specs; None takes the one that most of its specs name."""
    checks: list[str] = []
    """Commands beside `verify` that must succeed in its checkout."""


class ProjectEntry(_Entry):
    """A project of projects.json; one that the file does not name is ProjectEntry()."""

    sync_mode: Literal["scp", "git"] | None = None
    repo_local: str | None = None
    repo_url: str | None = None
    main_branch: str = "main"
    specs_dir: str | None = None
    gates: list[Gate] = list(DEFAULT_GATES)
    verify: str | None = None
    paused: bool = False
    write_set: Literal["warn", "fail", "fail_if_owned"] = "warn"
    """What a file outside `modifies` means; the last: fail when another live task owns it."""
    allow_empty_modifies: bool = False
    factory: ProjectFactory = ProjectFactory()


@dataclass(frozen=True, slots=True)
class EntryError:
    """What is wrong in one of the files. `entry` is its name, or #n, or None for the whole file."""

    file: Path
    entry: str | None
    key: str | None
    reason: str

    def __str__(self) -> str:
        parts = [str(self.file), self.entry, self.key, self.reason]
        return ": ".join(part for part in parts if part is not None)


@dataclass(frozen=True, slots=True)
class NodesFile:
    """`complete` is false when the file is missing or unreadable: it then says nothing of any node.

    A name among the errors is a node that is there, only wrongly written: not one that is gone.
    """

    nodes: tuple[NodeEntry, ...] = ()
    errors: tuple[EntryError, ...] = ()
    complete: bool = True


@dataclass(frozen=True, slots=True)
class ProjectsFile:
    """As NodesFile; `projects` by name, those with errors left out."""

    projects: Mapping[str, ProjectEntry]
    errors: tuple[EntryError, ...] = ()
    complete: bool = True


def read_nodes(path: Path) -> NodesFile:
    """Return the nodes of nodes.json in the file's order, and what is wrong with the others."""
    content, error = _load(path)
    if content is None:
        return NodesFile(errors=error, complete=False)
    entries = content.get("nodes") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        reason = 'must be a list of nodes, or {"nodes": [...]}'
        return NodesFile(errors=(EntryError(path, None, None, reason),), complete=False)
    nodes: dict[str, NodeEntry] = {}
    errors: list[EntryError] = []
    for number, entry in enumerate(entries, 1):
        given = entry.get("name") if isinstance(entry, dict) else None
        label = given if isinstance(given, str) and given else f"#{number}"
        node = _validate(NodeEntry, path, label, entry, errors)
        if node is None:
            continue
        if node.name in nodes:
            errors.append(EntryError(path, f"#{number}", "name", f"{node.name} is there already"))
        else:
            nodes[node.name] = node
    return NodesFile(tuple(nodes.values()), tuple(errors))


def read_projects(path: Path) -> ProjectsFile:
    """Return the projects of projects.json by name, and what is wrong with the others."""
    content, error = _load(path)
    if content is None:
        return ProjectsFile({}, error, complete=False)
    if not isinstance(content, dict):
        reason = "must be an object: project name to settings"
        return ProjectsFile({}, (EntryError(path, None, None, reason),), complete=False)
    errors: list[EntryError] = []
    read = {
        name: _validate(ProjectEntry, path, name, entry, errors) for name, entry in content.items()
    }
    return ProjectsFile({n: p for n, p in read.items() if p is not None}, tuple(errors))


def _load(path: Path) -> tuple[Any, tuple[EntryError, ...]]:
    """Return the JSON in a file; None with no error where there is no file."""
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        return None, ()
    except OSError as error:
        return None, (EntryError(path, None, None, f"cannot be read: {error.strerror}"),)
    except (ValueError, RecursionError) as error:
        return None, (EntryError(path, None, None, f"not JSON: {error}"),)
    if content is None:
        return None, (EntryError(path, None, None, "holds null"),)
    return content, ()


E = TypeVar("E", bound=_Entry)


def _validate(
    model: type[E], path: Path, label: str, entry: object, errors: list[EntryError]
) -> E | None:
    if not isinstance(entry, dict):
        errors.append(EntryError(path, label, None, "must be an object"))
        return None
    try:
        return model.model_validate(entry)
    except ValidationError as error:
        errors.extend(_explain(error, path, label))
        return None


def _explain(error: ValidationError, path: Path, label: str) -> Iterator[EntryError]:
    for detail in error.errors(include_url=False):
        key = ".".join(str(part) for part in detail["loc"])
        got = "" if detail["type"] == "missing" else f", not {json.dumps(detail['input'])[:80]}"
        words = _WORDS.get(detail.get("ctx", {}).get("pattern", ""), detail["msg"])
        yield EntryError(path, label, key, words + got)
