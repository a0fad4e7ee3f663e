"""The command line. Talks HTTP to the running controller; knows nothing of the database."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and leave the process with its exit code (cli/exit_codes.py).

    What goes wrong is one message on standard error, never a traceback; `python -X dev -m
    dispatch_controller` shows the traceback of a mistake in the program itself.
    """
    from dispatch_controller.cli.commands import app
    from dispatch_controller.cli.exit_codes import ExitCode, Failure
    from dispatch_controller.cli.output import complain
    from dispatch_controller.home import HomeError, HomeInUse
    from dispatch_controller.settings import SettingsError

    if isinstance(sys.stdout, TextIOWrapper):
        # A log may hold anything; what the terminal cannot show must not end the command.
        sys.stdout.reconfigure(errors="replace")
    code: int = ExitCode.OK
    try:
        app(arguments, prog_name="dispatch-controller")
    except Failure as failure:
        complain(str(failure))
        code = failure.code
    except SettingsError as error:
        complain("the settings cannot be used:")
        for problem in error.problems:
            complain(f"  {problem}")
        code = ExitCode.CONFIG
    except HomeError as error:
        complain(str(error))
        code = ExitCode.IN_USE if isinstance(error, HomeInUse) else ExitCode.CONFIG
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        complain(
            f"this is a mistake in the program: {type(error).__name__}: {error}\n"
            "please report it, with what `python -X dev -m dispatch_controller ...` prints"
        )
        code = ExitCode.INTERNAL
    sys.exit(code)
