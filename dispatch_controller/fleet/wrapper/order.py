"""An order to start one attempt, checked to the last field before anything is touched."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import blocks
from dispatch_controller.fleet.wrapper.layout import (
    BadName,
    checked_code,
    checked_lease,
    checked_name,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

GATES = ("exit", "changed", "conflict_markers", "verify", "min_duration", "no_todo")
TASK_LINE = "<!-- dispatch: the task -->"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_REF = re.compile(r"[A-Za-z0-9_][^\x00-\x20~^:?*\[\\\x7f]*\Z")
_LONGEST_ARGUMENT = 120_000  # Linux allows 128 KiB for one argument


class BadOrder(ValueError):
    """An order that cannot be carried out as written; the text names the field."""


class Mode:
    """One way to reach a model: environment, and variables read from files on the node."""

    def __init__(self, value: object) -> None:
        mode = _mapping(value, "executor.modes")
        self.api_mode = _text(mode.get("api_mode", "direct"), "executor.modes.api_mode")
        self.env = _variables(mode.get("env"), "executor.modes.env")
        self.env_files = _variables(mode.get("env_files"), "executor.modes.env_files")


class Order:
    """The fields of the protocol's Order, checked. Raises BadOrder."""

    def __init__(self, value: object) -> None:
        o = _mapping(value, "order")
        try:
            self.project = checked_name(o.get("project"), "project")
            self.folder = checked_name(o.get("folder"), "folder")
            self.lease = checked_lease(o.get("lease"))
            self.code = checked_code(o.get("code", "code"))
        except BadName as e:
            raise BadOrder(str(e)) from e
        self.task_id = _plain(o.get("task_id"), "task_id")
        self.attempt = _number(o.get("attempt"), "attempt")
        sequence = o.get("sequence")
        self.sequence = None if sequence is None else _number(sequence, "sequence")
        self.spec = _text(o.get("spec"), "spec")
        self.context = _text(o.get("context") or "", "context")
        self.timeout = _number(o.get("timeout"), "timeout", least=1)
        self.gates = _texts(o.get("gates", []), "gates")
        if set(self.gates) - set(GATES):
            raise BadOrder(f"gates: {sorted(set(self.gates) - set(GATES))} are none of {GATES}")
        verify = o.get("verify")
        self.verify = None if verify is None else _text(verify, "verify")
        self.modifies = _texts(o.get("modifies", []), "modifies")
        self.write_set = o.get("write_set", "warn")
        if self.write_set not in ("warn", "fail"):
            raise BadOrder(f"write_set: {self.write_set!r} is neither warn nor fail")
        self.git = _git(o.get("git"))
        self.resume = _resume(o.get("resume"))
        self.grace = _seconds(o.get("grace", 30), "grace")
        self.hop_delay = _seconds(o.get("hop_delay", 30), "hop_delay")
        self.min_duration = _seconds(o.get("min_duration", 5), "min_duration")
        self._executor(_mapping(o.get("executor"), "executor"))
        self.inherit_env = False

    def _executor(self, executor: Mapping[str, Any]) -> None:
        self.argv = _texts(executor.get("argv"), "executor.argv")
        if not self.argv or not self.argv[0]:
            raise BadOrder("executor.argv: names no program")
        self.stdin = bool(executor.get("stdin", False))
        modes = executor.get("modes") or [{}]
        if not isinstance(modes, list):
            raise BadOrder("executor.modes: a list is needed")
        self.modes = [Mode(mode) for mode in modes]
        self.rate_limit = _pattern(executor.get("rate_limit"), "executor.rate_limit")
        self.login = _pattern(executor.get("login"), "executor.login")
        self._blocks = ("", "sh")
        if any("{script}" in part or "{shell}" in part for part in self.argv):
            self._blocks = blocks.script(self.spec)
            if not self._blocks[0].strip():
                raise BadOrder("spec: it has no fenced sh or bash block to run")

    def is_newer_than(self, status: Mapping[str, Any]) -> bool:
        """Whether this attempt comes after the one of a status.json: by sequence, else attempt."""
        known = status.get("sequence")
        if self.sequence is not None and isinstance(known, int):
            return self.sequence > known
        attempt = status.get("attempt")
        return not isinstance(attempt, int) or self.attempt > attempt

    @property
    def full_spec(self) -> str:
        """The text of spec.md."""
        if not self.context:
            return self.spec
        return f"{self.context}\n\n{TASK_LINE}\n\n{self.spec}"

    def command(self, spec_path: str) -> list[str]:
        """The executor's argv with its placeholders filled in, the program first.

        Raises BadOrder where an argument is longer than the system takes.
        """
        values = {"{spec}": spec_path, "{script}": self._blocks[0], "{shell}": self._blocks[1]}
        if any("{prompt}" in part for part in self.argv):
            values["{prompt}"] = self.full_spec
        filled = [_PLACEHOLDER.sub(lambda m: values[m.group()], part) for part in self.argv]
        for part in filled:
            if len(part.encode()) > _LONGEST_ARGUMENT or "\0" in part:
                raise BadOrder(
                    "executor.argv: an argument is longer than 120000 bytes or holds a null "
                    "character; give the spec by {spec} or stdin"
                )
        filled[0] = os.path.expanduser(filled[0])
        return filled


_PLACEHOLDER = re.compile(r"\{(?:spec|prompt|script|shell)\}")


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadOrder(f"{what}: an object is needed")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise BadOrder(f"{what}: a text is needed")
    try:
        value.encode()
    except UnicodeEncodeError as e:
        raise BadOrder(f"{what}: {e.reason}") from e
    return value


def _plain(value: object, what: str) -> str:
    text = _text(value, what)
    if not text or len(text) > 1000 or any(ord(c) < 32 for c in text):
        raise BadOrder(f"{what}: {text[:80]!r} is empty, too long or holds control characters")
    return text


def _texts(value: object, what: str) -> list[str]:
    if not isinstance(value, list):
        raise BadOrder(f"{what}: a list of texts is needed")
    return [_text(v, what) for v in value]


def _number(value: object, what: str, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadOrder(f"{what}: a whole number from {least} is needed")
    return value


def _seconds(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e6:
        raise BadOrder(f"{what}: seconds are needed")
    return float(value)


def _variables(value: object, what: str) -> dict[str, str]:
    variables = _mapping(value or {}, what)
    for name, content in variables.items():
        if not _VARIABLE.match(name) or "\0" in _text(content, f"{what}.{name}"):
            raise BadOrder(f"{what}: {name!r} cannot be in an environment")
    return dict(variables)


def _pattern(value: object, what: str) -> re.Pattern[str] | None:
    if value is None or value == "":
        return None
    try:
        return re.compile(_text(value, what), re.IGNORECASE)
    except re.error as e:
        raise BadOrder(f"{what}: {e}") from e


def _git(value: object) -> dict[str, str] | None:
    if value is None:
        return None
    git = _mapping(value, "git")
    url = _text(git.get("url"), "git.url")
    # `ext::` and friends run programs; a leading dash would be an option.
    if not url or url.startswith("-") or re.match(r"[A-Za-z0-9]+::", url):
        raise BadOrder(f"git.url: {url!r} is not taken")
    return {
        "url": url,
        "branch": _ref(git.get("branch"), "git.branch"),
        "push": _ref(git.get("push"), "git.push"),
    }


def _ref(value: object, what: str) -> str:
    ref = _text(value, what)
    if not _REF.match(ref) or ".." in ref or "@{" in ref or ref.endswith((".lock", "/", ".")):
        raise BadOrder(f"{what}: {ref!r} is no name of a branch")
    return ref


def _resume(value: object) -> dict[str, str] | None:
    if value is None:
        return None
    resume = _mapping(value, "resume")
    if "ref" in resume:
        return {"ref": _ref(resume["ref"], "resume.ref")}
    path = _text(resume.get("archive"), "resume.archive")
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise BadOrder(f"resume.archive: {path!r} is not a path below the work_dir")
    return {"archive": path}
