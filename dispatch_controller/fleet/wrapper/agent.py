"""Starting the agent: a process that exists, but does nothing until its start is on disk.

The child waits at a gate (a pipe) before it executes the program. The supervisor writes status.json
with the child's pid and then opens the gate. If the supervisor dies before that, the gate breaks
and the child ends: no agent runs without a record of it. A shell's script waits by itself: a
process that is spawned costs a third of a fork of Python.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HIGHEST_FD = 4096
NOT_STARTED = 127


class Agent:
    """A child at its gate. `open_gate` lets it run; `call_off` ends it unstarted."""

    def __init__(self, pid: int, gate: int, problems: int | None = None) -> None:
        self.pid = pid
        self._gate = gate
        self._problems = problems

    def open_gate(self) -> None:
        try:
            os.write(self._gate, b"x\n")
        except OSError:
            return  # it was killed at the gate; its wait status tells
        finally:
            os.close(self._gate)

    def call_off(self) -> None:
        os.close(self._gate)
        if self._problems is not None:
            os.close(self._problems)

    def problem(self) -> str | None:
        """Why the program could not be executed, None when it was. Ask after its end."""
        if self._problems is None:
            return None
        try:
            text = os.read(self._problems, 4096).decode(errors="replace")
        except BlockingIOError:
            text = ""  # a process it left behind cannot hold this pipe: it closes on exec
        os.close(self._problems)
        return text or None


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    *,
    stdin: int,
    output: int,
    keep: Sequence[int] = (),
) -> Agent:
    """Fork a child in its own session that will execute `argv` once its gate opens.

    `keep` are descriptors it inherits (the task's lock). Raises OSError when no process is left.
    """
    gate, gate_end = os.pipe()
    told, tell = os.pipe()
    os.set_blocking(told, False)
    pid = os.fork()
    if pid == 0:
        try:
            _child(argv, env, cwd, stdin, output, keep, gate, tell)
        finally:
            os._exit(NOT_STARTED)
    os.close(gate)
    os.close(tell)
    return Agent(pid, gate_end, told)


def waits_by_itself(argv: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether `spawn_script` can start it: a shell that runs the text in its arguments, and runs
    nothing before it."""
    return (
        sys.platform.startswith("linux")
        and len(argv) > 2
        and argv[-2] == "-c"
        and set(argv[1:-2]) <= {"-e", "-u", "-eu"}
        and os.path.basename(argv[0]) in ("sh", "bash")
        and not any(name.startswith("BASH_") for name in env)
    )


def spawn_script(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    *,
    stdin: str,
    output: int,
    lock: int,
) -> Agent:
    """As `spawn`, for what `waits_by_itself`: the gate is its standard input until it opens.

    `stdin` is the path of what it reads then. Raises OSError.
    """
    gate, gate_end = os.pipe()
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    script = f"read -r _ && exec <{shlex.quote(stdin)} || exit {NOT_STARTED}; {argv[-1]}"
    try:
        os.chdir(cwd)
        os.set_inheritable(lock, True)
        pid = os.posix_spawn(
            argv[0],
            [*argv[:-1], script],
            env,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, to) for fd, to in
                          ((gate, 0), (output, 1), (output, 2))],
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )  # fmt: skip
    except BaseException:
        os.close(gate_end)
        raise
    finally:
        os.set_inheritable(lock, False)
        os.fchdir(here)
        os.close(here)
        os.close(gate)
    return Agent(pid, gate_end)


def _child(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    stdin: int,
    output: int,
    keep: Sequence[int],
    gate: int,
    tell: int,
) -> None:
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(stdin, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    close_all_but([*keep, gate, tell])
    for fd in keep:
        os.set_inheritable(fd, True)
    if os.read(gate, 1) != b"x":
        return
    try:
        os.chdir(cwd)
        os.execve(argv[0], list(argv), dict(env))  # noqa: S606 - no shell is the point
    except (OSError, ValueError) as e:
        os.write(tell, f"{argv[0]}: {e}"[:1000].encode())


def close_all_but(keep: Sequence[int]) -> None:
    """Close every descriptor from 3 on, except `keep`."""
    low = 3
    for fd in sorted(keep):
        os.closerange(low, fd)
        low = max(low, fd + 1)
    os.closerange(low, max(low, _HIGHEST_FD))


def exit_code(wait_status: int) -> int:
    """The exit code as a shell tells it: 128 + n for a death by signal n."""
    if os.WIFSIGNALED(wait_status):
        return 128 + os.WTERMSIG(wait_status)
    return os.WEXITSTATUS(wait_status)
