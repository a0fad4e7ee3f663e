"""Runs a program for the factory: bounded in time and output, its whole process group ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from dispatch_controller.settings_report import secret_name

_PIECE = 65536


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended. `code` is None where it was ended for its time or its output."""

    code: int | None
    output: str
    timed_out: bool = False
    too_much: bool = False


async def run_program(
    argv: Sequence[str],
    *,
    timeout: float,  # noqa: ASYNC109 - its expiry is a result, not a cancellation
    limit: int,
    cwd: Path | None = None,
    stdin: bytes = b"",
    with_errors: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Ran:
    """Run `argv` and return what it wrote to standard output, `limit` bytes at most.

    `with_errors` takes standard error in as well. Raises OSError where it cannot be started.
    """
    process = await trio.lowlevel.open_process(
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if with_errors else subprocess.DEVNULL,
        cwd=cwd,
        env=None if environment is None else dict(environment),
        start_new_session=True,
    )
    output = bytearray()
    try:
        with trio.move_on_after(timeout) as scope:
            async with trio.open_nursery() as nursery:
                if process.stdin is not None:
                    nursery.start_soon(_feed, process.stdin, stdin)
                while process.stdout is not None and len(output) <= limit:
                    piece = await process.stdout.receive_some(_PIECE)
                    if not piece:
                        break
                    output += piece
                if len(output) <= limit:
                    await process.wait()
                nursery.cancel_scope.cancel()
    finally:
        await _end(process)
    text = bytes(output[:limit]).decode("utf-8", "replace")
    if scope.cancelled_caught:
        return Ran(None, text, timed_out=True)
    if len(output) > limit:
        return Ran(None, text, too_much=True)
    return Ran(process.returncode, text)


async def _feed(pipe: trio.abc.SendStream, content: bytes) -> None:
    with suppress(trio.BrokenResourceError):  # a program need not read what it is given
        await pipe.send_all(content)
    await pipe.aclose()


async def _end(process: trio.Process) -> None:
    """End whatever is left of the process group, and wait for the process itself."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with trio.CancelScope(shield=True):
        await process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                await pipe.aclose()


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what looks like a key, for a project's own commands."""
    return {name: value for name, value in environ.items() if not secret_name(name)}
