"""A spec: a Markdown file with YAML front matter, read into one value or one error (specs.md)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TypeVar

from dispatch_controller.core import fields, front_matter, ids
from dispatch_controller.core.front_matter import FrontMatterError, Node, Scalar
from dispatch_controller.model import SpecExtras

SIZE_LIMIT = 1024 * 1024
"""Bytes of a spec file at most."""

DEFAULT_EXECUTOR = "glm"
DEFAULT_PRIORITY = 2
DEFAULT_MINUTES = 30
DEFAULT_RETRIES = 2
LEAST_TIMEOUT = 120
"""Minutes; the time limit is otherwise four times the estimate."""

_WEEK = 7 * 24 * 60
_RUNNABLE_NAME = re.compile(r"[SP][0-9]", re.ASCII)
_SPEC_KEY = re.compile(
    r"^[\"']?(?:task_id|project|priority|estimated_minutes|depends_on|modifies|exclusive"
    r"|executor|max_retries|timeout_minutes|verify)[\"']?[ \t]*:",
    re.MULTILINE,
)
_HEADING = re.compile(r"^# (.*)$", re.MULTILINE)
_LONGEST_TITLE = 200
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Spec:
    """What a runnable file asks for. Ids and paths are as the file writes them."""

    task_id: str
    project: str
    path: str
    spec_hash: str
    """SHA-256 of the file's bytes, hex."""
    priority: int = DEFAULT_PRIORITY
    estimated_minutes: int = DEFAULT_MINUTES
    depends_on: tuple[str, ...] = ()
    modifies: tuple[str, ...] = ()
    exclusive: bool = False
    executor: str = DEFAULT_EXECUTOR
    max_retries: int = DEFAULT_RETRIES
    timeout_minutes: int = LEAST_TIMEOUT
    verify: str | None = None
    title: str | None = None
    body: str = ""
    generated_by: str | None = None
    evidence_key: str | None = None
    generation: int | None = None
    warnings: tuple[str, ...] = ()
    """Values that were not as they should be, each with its line and what was taken instead."""

    @property
    def extras(self) -> SpecExtras:
        """What has no column in the database."""
        return SpecExtras(self.spec_hash, self.executor, self.verify, self.timeout_minutes)


@dataclass(frozen=True, slots=True)
class Document:
    """A Markdown file that is no spec."""

    path: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SpecError:
    """Why a file was not taken. `line` counts from 1; 1 where the whole file is meant."""

    file: str
    line: int
    reason: str


Parsed = Spec | Document | SpecError


def parse(
    path: str,
    content: bytes,
    *,
    project: str | None = None,
    default_project: str,
    modifies_optional: Container[str] = frozenset(),
) -> Parsed:
    """Return what a file is; takes any bytes and never raises.

    `project` is the caller's choice and wins over the front matter's, which wins over
    `default_project`. An empty `modifies` is an error unless the project is in
    `modifies_optional`. A wrong id, project or path is an error; any other odd value becomes the
    field's default and a warning (specs.md, "when absent or odd").
    """
    if len(content) > SIZE_LIMIT:
        return too_large(path, len(content), content)
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        return _not_utf8(path, content, error)
    block = front_matter.split(text)
    if block is None:
        return _without_front_matter(path)
    # The first paragraph only: a document may begin with a rule and say "project:" further down.
    opening = block.text.lstrip("\n").partition("\n\n")[0]
    may_be_spec = _named_as_runnable(path) or _SPEC_KEY.search(opening) is not None
    if not block.closed:
        return _not_closed(path, block.line - 1) if may_be_spec else Document(path)
    try:
        keys = front_matter.load(block)
    except FrontMatterError as error:
        if may_be_spec:
            return SpecError(path, error.line, error.reason)
        return Document(path, (f"line {error.line}: {error.reason}; taken as a document",))
    if keys is None or not ("task_id" in keys or _named_as_runnable(path)):
        return Document(path)
    reader = _Reader(path, keys)
    try:
        return reader.spec(
            hashlib.sha256(content).hexdigest(),
            block.body,
            project=project,
            default_project=default_project,
            modifies_optional=modifies_optional,
        )
    except fields.Odd as odd:
        return SpecError(path, odd.line or block.line - 1, odd.reason)


def too_large(path: str, size: int, head: bytes) -> Document | SpecError:
    """Return what a file over the limit is, from its size in bytes and its first bytes."""
    starts_as_spec = head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"---")
    if not starts_as_spec and not _named_as_runnable(path):
        return Document(path)
    reason = f"file has {size} bytes, more than the {SIZE_LIMIT} of a spec; shorten or split it"
    return SpecError(path, 1, reason)


def _not_utf8(path: str, content: bytes, error: UnicodeDecodeError) -> Document | SpecError:
    line = content.count(b"\n", 0, error.start) + 1
    at = f"byte {error.start + 1} (0x{content[error.start]:02x}) is not UTF-8"
    starts_as_spec = content.lstrip().startswith((b"---", *_UTF16, b"\xef\xbb\xbf---"))
    if starts_as_spec or _named_as_runnable(path):
        return SpecError(path, line, f"{at}; save the file as UTF-8")
    return Document(path, (f"line {line}: {at}; taken as a document",))


def _not_closed(path: str, line: int) -> SpecError:
    return SpecError(path, line, "front matter is not closed; put a line with --- at its end")


def _without_front_matter(path: str) -> Document:
    if not _named_as_runnable(path):
        return Document(path)
    return Document(path, ("named like a spec but has no front matter; taken as a document",))


def _named_as_runnable(path: str) -> bool:
    return _RUNNABLE_NAME.match(PurePath(path).name) is not None


@dataclass
class _Reader:
    """Reads the fields of one file, collecting warnings."""

    path: str
    keys: dict[str, tuple[int, Node]]
    warnings: list[str] = field(default_factory=list)

    def spec(
        self,
        spec_hash: str,
        body: str,
        *,
        project: str | None,
        default_project: str,
        modifies_optional: Container[str],
    ) -> Spec:
        task_id = self.required_id("task_id", None, PurePath(self.path).stem, "the file's name")
        home = self.required_id("project", project, default_project, "the folder's name")
        minutes = self.lenient("estimated_minutes", _minutes, DEFAULT_MINUTES)
        modifies = self.modifies(optional=home in modifies_optional)
        return Spec(
            task_id=task_id,
            project=home,
            path=self.path,
            spec_hash=spec_hash,
            priority=self.lenient("priority", fields.priority, DEFAULT_PRIORITY),
            estimated_minutes=minutes,
            depends_on=self.lenient("depends_on", fields.dependencies, ()),
            modifies=modifies,
            exclusive=self.lenient("exclusive", fields.boolean, False),
            executor=self.lenient("executor", fields.identifier, DEFAULT_EXECUTOR),
            max_retries=self.lenient("max_retries", _retries, DEFAULT_RETRIES),
            timeout_minutes=self.lenient(
                "timeout_minutes", _minutes, max(LEAST_TIMEOUT, 4 * minutes)
            ),
            verify=self.string("verify"),
            title=self.string("title") or _heading(body),
            body=body,
            generated_by=self.string("generated_by"),
            evidence_key=self.string("evidence_key"),
            generation=self.lenient("generation", _generation, None),
            warnings=tuple(self.warnings),
        )

    def value(self, key: str) -> Node | None:
        """Return the key's value; an empty one counts as absent."""
        _, node = self.keys.get(key, (0, None))
        return None if isinstance(node, Scalar) and node.null else node

    def required_id(self, key: str, given: str | None, default: str, source: str) -> str:
        node = self.value(key) if given is None else None
        if node is not None:
            try:
                return fields.identifier(node)
            except fields.Odd as odd:
                raise fields.Odd(f"{key}: {odd.reason}", self.keys[key][0]) from odd
        value = default if given is None else given
        reason = ids.problem(value)
        if reason is None:
            return value
        where = source if given is None else "the one given"
        advice = f"; write {key}: in the front matter" if given is None else ""
        raise fields.Odd(f"{key}: {ids.shown(value)}, {where}, is not an id: {reason}{advice}")

    def modifies(self, *, optional: bool) -> tuple[str, ...]:
        node = self.value("modifies")
        line = self.keys["modifies"][0] if "modifies" in self.keys else None
        try:
            found = () if node is None else fields.modified_paths(node)
        except fields.Odd as odd:
            raise fields.Odd(f"modifies: {odd.reason}", odd.line) from odd
        if found or optional:
            return found
        state = "is missing" if line is None else "is empty"
        raise fields.Odd(f"modifies {state}; list the files that the task may change", line)

    def string(self, key: str) -> str | None:
        return self.lenient(key, fields.text, "") or None

    def lenient(self, key: str, read: Callable[[Node], _T], default: _T) -> _T:
        node = self.value(key)
        if node is None:
            return default
        try:
            return read(node)
        except fields.Odd as odd:
            taken = "nothing" if default in (None, "", ()) else str(default).lower()
            line = odd.line or self.keys[key][0]
            self.warnings.append(f"line {line}: {key}: {odd.reason}; taken as {taken}")
            return default


def _heading(body: str) -> str | None:
    """Return the first heading of the text, cut to 200 characters."""
    heading = _HEADING.search(body)
    return (heading[1].strip(" \t#")[:_LONGEST_TITLE] or None) if heading else None


def _minutes(node: Node) -> int:
    return fields.integer(node, 1, _WEEK)


def _retries(node: Node) -> int:
    return fields.integer(node, 0, 100)


def _generation(node: Node) -> int | None:
    return fields.integer(node, 0, 1_000_000)
