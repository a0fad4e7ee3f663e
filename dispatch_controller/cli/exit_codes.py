"""Exit codes of `dispatch-controller`, those of sysexits.h where one fits (docs/operations.md)."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    OK = 0
    """Done as asked; warnings may have been printed."""
    FAILED = 1
    """Something of what was asked could not be done: a bad spec, an unknown task, a conflict."""
    USAGE = 2
    """The command line is not understood."""
    NOT_RUNNING = 69
    """No controller answers (EX_UNAVAILABLE)."""
    INTERNAL = 70
    """A mistake in this program (EX_SOFTWARE)."""
    IN_USE = 75
    """Another controller runs on this home (EX_TEMPFAIL)."""
    CONFIG = 78
    """The settings, the home or the database cannot be used as they are (EX_CONFIG)."""
    INTERRUPTED = 130
    """Ended by Ctrl-C."""


class Failure(Exception):
    """Ends a command: the text goes to standard error, `code` is the exit code."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code
