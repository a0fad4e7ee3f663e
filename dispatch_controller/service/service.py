"""What launchd and systemd are told alike: which program, with what, and how long it may take."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from dispatch_controller.settings_report import secret_name
from dispatch_controller.settings_sources import PORT_NAME, PREFIX

Platform = Literal["launchd", "systemd"]
Tell = Callable[[str], None]
"""Takes one line for the user: what was done, or what they must know."""

STOP_MARGIN = 15
"""Seconds beyond the grace in which the queue is written and connections are closed."""
DESCRIPTION = "dispatch-controller: task specs to coding agents on your own machines"
OPEN_FILES = 8192
"""Nodes, workers and pages that are left open are a descriptor each; macOS gives 256."""


class ServiceError(Exception):
    """The service manager did not do what was asked; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Service:
    """The controller of one home."""

    home: Path
    argv: tuple[str, ...]
    grace: float
    """Seconds; `grace` of the settings."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def stop_seconds(self) -> int:
        return int(self.grace) + STOP_MARGIN


@dataclass(frozen=True, slots=True)
class Status:
    """`state` in the manager's words; `pid` None while it does not run."""

    installed: bool
    loaded: bool
    running: bool
    pid: int | None
    state: str
    file: Path


class Manager(Protocol):
    """What `dispatch-controller service` does, each of it safe to do twice. Raises ServiceError."""

    file: Path

    def content(self) -> str: ...

    def commands(self) -> list[list[str]]:
        """Return what `install` calls on a machine where everything has still to be done."""

    def install(self, tell: Tell) -> None: ...

    def uninstall(self, tell: Tell) -> None: ...

    def restart(self, tell: Tell) -> None: ...

    def status(self) -> Status: ...


def controller_argv(home: Path) -> tuple[str, ...]:
    """Return the command line of the controller, independent of PATH and of the current folder."""
    # -P: the home is the working folder, and no module of a like name there may come first.
    return (sys.executable, "-P", "-m", "dispatch_controller", "run", "--home", str(home))


def carried_environment(environ: Mapping[str, str], others: Sequence[str] = ()) -> dict[str, str]:
    """Return the variables that the service keeps from the shell that installs it.

    PATH, so that agents on this machine are found, and the settings. Raises ServiceError for a
    secret among them: what the manager starts a service with can be read by others.
    """
    kept = {"PATH": environ.get("PATH") or os.defpath}
    for name, value in sorted(environ.items()):
        ours = name.startswith(PREFIX) and name not in others and name != f"{PREFIX}HOME"
        if not value or not (ours or name == PORT_NAME):
            continue
        if secret_name(name):
            raise ServiceError(
                f"{name} is set in this shell, and a service file is no place for it: put it in a "
                "file of mode 600 and name that in dispatch.toml (api_token_file, env_files), then "
                f"`unset {name}` and install again"
            )
        kept[name] = value
    for name, value in kept.items():
        if "\n" in value or "\0" in value:
            raise ServiceError(f"{name} has more than one line; a service cannot be given that")
    return kept


def detect_platform() -> Platform:
    """Return the service manager of this machine. Raises ServiceError where there is none."""
    if sys.platform == "darwin":
        return "launchd"
    if shutil.which("systemctl"):
        return "systemd"
    raise ServiceError(
        "this machine has neither launchd nor systemd; run `dispatch-controller run` under what it "
        "has, or say --platform to see the file for another machine"
    )


def write_file(path: Path, content: str) -> None:
    """Write a service file whole or not at all, readable by everybody, writable by its owner."""
    beside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(content, "utf-8")
        beside.chmod(0o644)
        beside.replace(path)
    except OSError as error:
        raise ServiceError(_not_written(path, error)) from error


def remove_file(path: Path) -> bool:
    """Remove a service file; return whether there was one."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ServiceError(_not_written(path, error)) from error
    return True


def read_file(path: Path) -> str | None:
    """Return the content of a service file, None where there is none that can be read."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _not_written(path: Path, error: OSError) -> str:
    text = f"{path}: {error.strerror or error}"
    if isinstance(error, PermissionError):
        text += "; a service of the whole machine is for root: use sudo, or leave --system out"
    return text
