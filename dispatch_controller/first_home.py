"""A working home from nothing: which machines, which specs, and the files that say so. Blocking."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dispatch_controller.core.spec import DEFAULT_EXECUTOR
from dispatch_controller.home import Home, unusable
from dispatch_controller.node_files import NodeEntry
from dispatch_controller.spec_files import Found, find

THIS_MACHINE = "here"
_INCLUDES = 16
"""Depth of Include that OpenSSH follows (man ssh_config)."""
_REPOSITORY = re.compile(r"(?:[a-z+]+://|[\w.-]+@[\w.-]+:)\S+|\S+\.git", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the new home is to hold."""

    nodes: Sequence[NodeEntry] = ()
    specs: Path | None = None
    """Where all projects' specs are, when they are in one folder."""
    projects: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def ssh_hosts(config: Path) -> list[str]:
    """Return the hosts that an OpenSSH client configuration names, in its order.

    Patterns, and hosts of forges that only serve git, are left out. What cannot be read is empty.
    """
    found = dict.fromkeys(_hosts(config, config.parent, 0))
    return [name for name in found if not re.search(r"(?i)(github|gitlab|bitbucket)\b", name)]


def _hosts(config: Path, base: Path, depth: int) -> Iterator[str]:
    try:
        lines = config.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        keyword, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        if keyword.lower() == "host":
            yield from (name for name in _words(rest) if not set("*?!") & set(name))
        elif keyword.lower() == "include" and depth < _INCLUDES:
            for pattern in _words(rest):
                place = Path(pattern).expanduser()
                absolute = place if place.is_absolute() else base / place
                for path in sorted(absolute.parent.glob(absolute.name)):
                    yield from _hosts(path, base, depth + 1)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return text.split()


def node(given: str, slots: int, executor: str) -> NodeEntry:
    """Return a node from `here`, `ALIAS` or `NAME=SSH_HOST`.

    Raises ValueError (pydantic's) for a name that cannot be one.
    """
    name, _, host = given.partition("=")
    if not host and name != THIS_MACHINE:
        host = name
        name = re.sub(r"[\s/:@\[\]]+", "-", name.rpartition("@")[2]).strip("-")
    return NodeEntry(name=name, ssh_host=host or None, slots=slots, executor=executor)


def projects_of(
    specs: Path, project: str | None, code: str | None
) -> tuple[Path | None, dict[str, dict[str, str]]]:
    """Return (`specs` setting or None, projects.json) for a folder of specs.

    A folder of one project becomes that project's specs_dir; one with several stays one folder.
    `code`: a folder that is copied to nodes, or the address of a git repository.
    """
    found = find([specs], project)
    names = sorted({spec.project for spec in found.specs} or {project or specs.name})
    how = _code(code) if code else {}
    if len(names) == 1:
        return None, {names[0]: {"specs_dir": str(specs), **how}}
    return specs, {name: dict(how) for name in names} if how else {}


def _code(code: str) -> dict[str, str]:
    folder = Path(code).expanduser()
    if not folder.is_dir() and _REPOSITORY.fullmatch(code):
        return {"sync_mode": "git", "repo_url": code}
    return {"sync_mode": "scp", "repo_local": str(Path(os.path.abspath(folder)))}  # noqa: PTH100


def usual_executor(found: Found | None) -> str:
    """Return the executor that most of the specs want."""
    wanted = Counter(spec.executor for spec in found.specs) if found else Counter[str]()
    return wanted.most_common(1)[0][0] if wanted else DEFAULT_EXECUTOR


def make_home(home: Home, wanted: Wanted) -> Iterable[tuple[Path, bool]]:
    """Make the folder and write the files that are missing; give each with whether it was written.

    A file that is there is never touched. Raises HomeError.
    """
    home.prepare()
    try:
        (home.root / "specs").mkdir(exist_ok=True)
    except OSError as error:
        raise unusable(home.root, error) from error
    nodes = [entry.model_dump(exclude_defaults=True) for entry in wanted.nodes]
    toml = f"specs = {json.dumps(str(wanted.specs))}\n" if wanted.specs is not None else ""
    files = [
        (home.nodes, _json(nodes) if nodes else ""),
        (home.projects, _json(wanted.projects) if wanted.projects else ""),
        (home.settings, toml),
    ]
    return [(path, _write_new(path, content)) for path, content in files if content]


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _write_new(path: Path, content: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        return False
    except OSError as error:
        raise unusable(path, error) from error
    return True
