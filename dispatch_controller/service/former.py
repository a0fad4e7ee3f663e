"""The launchd services that this controller replaces (operations.md, "Service")."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dispatch_controller.service.programs import run_program

LABELS = ("com.oyster.guardian", "com.oyster.reaper", "com.oyster.factory")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A former service that launchd holds. `domain` is gui/<uid>, user/<uid> or system."""

    label: str
    domain: str

    @property
    def target(self) -> str:
        return f"{self.domain}/{self.label}"

    @property
    def unload(self) -> str:
        """The command that unloads it and keeps it from coming back at the next login."""
        sudo = "sudo " if self.domain == "system" else ""
        return f"{sudo}launchctl disable {self.target}; {sudo}launchctl bootout {self.target}"


def domains(uid: int) -> tuple[str, ...]:
    return (f"gui/{uid}", f"user/{uid}", "system")


def loaded(uid: int) -> list[Loaded]:
    """Return the former services that are loaded, in any domain. Raises ServiceError."""
    return [
        Loaded(label, domain)
        for label in LABELS
        for domain in domains(uid)
        if run_program(["launchctl", "print", f"{domain}/{label}"]).code == 0
    ]


def files(user_folder: Path) -> Iterator[tuple[str, Path]]:
    """Give (label, file) of the former services that a user still has in LaunchAgents."""
    for label in LABELS:
        path = user_folder / f"{label}.plist"
        if path.is_file():
            yield label, path


def load_again(uid: int, label: str, path: Path) -> str:
    """Return the command that loads a former service again."""
    return (
        f"launchctl enable gui/{uid}/{label}; "
        f"launchctl bootstrap gui/{uid} {shlex.quote(str(path))}"
    )


def named_in(command_line: str) -> str | None:
    """Return the label of the former daemon whose name a command line carries, or None.

    They ran as scripts: guardian.py, reaper_daemon.py, `python -m dispatch.factory` and the like.
    """
    for label in LABELS:
        word = label.rpartition(".")[2]
        if re.search(rf"(?:^|[/.\s_-]){word}(?:[_-]?(?:daemon|loop|main))?(?:\.py)?(?=\s|$)",
                     command_line):  # fmt: skip
            return label
    return None
