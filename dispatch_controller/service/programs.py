"""The one seam through which launchctl and systemctl are called."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from dispatch_controller.service.service import ServiceError

PATIENCE = 300
"""Seconds; `systemctl start` returns once the service is ready, a stop takes its grace."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended, and all it printed."""

    argv: tuple[str, ...]
    code: int
    text: str

    @property
    def line(self) -> str:
        """The command as one would type it."""
        return shlex.join(self.argv)

    def explain(self) -> str:
        """Return what went wrong in one sentence."""
        said = " ".join(self.text.split())
        return f"`{self.line}` ended with {self.code}" + (f": {said}" if said else "")


def run_program(argv: Sequence[str]) -> Ran:
    """Run a program to its end. Raises ServiceError where it is missing or does not end."""
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except FileNotFoundError:
        raise ServiceError(f"there is no {argv[0]} on this machine") from None
    except OSError as error:
        raise ServiceError(f"{argv[0]} does not start: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise ServiceError(f"`{shlex.join(argv)}` did not end within {PATIENCE} s") from None
    return Ran(tuple(argv), done.returncode, done.stdout)
