"""The processes of this machine: from /proc on Linux, from `ps` elsewhere (macOS)."""

from __future__ import annotations

import functools
import os
import sys

LINUX = sys.platform.startswith("linux")
_DEAD = (b"Z", b"X")
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Process:
    """One process. `start` tells it from a later one with the same pid."""

    __slots__ = ("cpu", "pgid", "pid", "ppid", "session", "start", "zombie")

    def __init__(
        self, pid: int, ppid: int, pgid: int, session: int, start: str, cpu: float, zombie: bool
    ) -> None:
        self.pid = pid
        self.ppid = ppid
        self.pgid = pgid
        self.session = session
        self.start = start
        self.cpu = cpu
        self.zombie = zombie


@functools.lru_cache(maxsize=1)
def boot_id() -> str:
    """What changes when the machine restarts."""
    if LINUX:
        try:
            with open("/proc/sys/kernel/random/boot_id") as file:
                return file.read().strip()
        except OSError:
            return ""
    # Not kern.boottime: that moves when the clock is set.
    return _output(["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]).strip()


def start_of(pid: int) -> str | None:
    """Start time of a process: clock ticks since boot on Linux, `ps -o lstart` elsewhere.

    None when there is none, or only a zombie.
    """
    if LINUX:
        raw = _read(f"/proc/{pid}/stat")
        fields = raw[raw.rfind(b")") + 2 :].split(None, 20)
        return fields[19].decode() if len(fields) > 19 and fields[0] not in _DEAD else None
    return _output(["ps", "-o", "lstart=", "-p", str(pid)]).strip() or None


def own_start() -> str | None:
    """As start_of, of this process; read once."""
    return _start_once(os.getpid())


@functools.lru_cache(maxsize=1)
def _start_once(pid: int) -> str | None:
    return start_of(pid)


def is_same(pid: object, start: object, boot: object) -> bool:
    """Whether the process recorded as (pid, start, boot) is the one that has this pid now."""
    if not isinstance(pid, int) or pid <= 1 or not start or boot != boot_id():
        return False
    return start_of(pid) == str(start)


def table() -> dict[int, Process]:
    """Every process, by pid."""
    return _proc_table() if LINUX else _ps_table()


def marked(processes: dict[int, Process], lease: str) -> set[int]:
    """Pids whose environment holds exactly LEASE=<lease>. Only our own user's can be read."""
    entry = b"LEASE=" + lease.encode()
    if LINUX:
        return {pid for pid in processes if entry in _environ(pid).split(b"\0")}
    found = set()
    for line in _output(["ps", "-axEww", "-o", "pid=,command="]).encode().splitlines():
        words = line.split(b" ")
        if entry in words:
            pid = line.split(None, 1)[0]
            found.add(int(pid))
    return found & set(processes)


def descendants(processes: dict[int, Process], root: int) -> set[int]:
    """Pids below `root` in the tree of processes, without `root`."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.ppid, []).append(process.pid)
    found: set[int] = set()
    ahead = [root]
    while ahead:
        for child in children.get(ahead.pop(), ()):
            if child not in found:
                found.add(child)
                ahead.append(child)
    return found


def ancestors(processes: dict[int, Process], pid: int) -> set[int]:
    """`pid` and everything above it."""
    found: set[int] = set()
    while pid in processes and pid not in found:
        found.add(pid)
        pid = processes[pid].ppid
    return found


def reads_terminal(pid: int) -> bool:
    """Whether the process is known to be blocked reading a terminal or its standard input."""
    if not LINUX:
        return False
    if _read(f"/proc/{pid}/wchan") in (b"n_tty_read", b"tty_read"):
        return True
    call = _read(f"/proc/{pid}/syscall").split()
    number = {"x86_64": b"0", "aarch64": b"63"}.get(os.uname().machine)
    return len(call) > 1 and call[0] == number and call[1] == b"0x0"


def _proc_table() -> dict[int, Process]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            process = _stat(int(name))
            if process:
                found[process.pid] = process
    return found


def _stat(pid: int) -> Process | None:
    raw = _read(f"/proc/{pid}/stat")
    # The name is in brackets and may itself hold blanks and brackets.
    fields = raw[raw.rfind(b")") + 2 :].split()
    if len(fields) < 20:
        return None
    ppid, pgid, session = int(fields[1]), int(fields[2]), int(fields[3])
    cpu = sum(int(f) for f in fields[11:15]) / _TICKS
    zombie = fields[0] in _DEAD
    return Process(pid, ppid, pgid, session, fields[19].decode(), cpu, zombie)


def _ps_table() -> dict[int, Process]:
    found = {}
    for line in _output(["ps", "-axo", "pid=,ppid=,pgid=,stat=,time=,lstart="]).splitlines():
        words = line.split()
        if len(words) >= 6:
            pid, ppid, pgid = (int(w) for w in words[:3])
            start = " ".join(words[5:])
            # macOS tells no session that could be compared; the group stands for it.
            found[pid] = Process(
                pid, ppid, pgid, pgid, start, _cpu_time(words[4]), words[3].startswith("Z")
            )
    return found


def _cpu_time(text: str) -> float:
    """Seconds of `[[d-]h:]m:s.ss`."""
    days, _, rest = text.rpartition("-")
    seconds = 0.0
    for part in rest.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds + 86400 * int(days or 0)


def _environ(pid: int) -> bytes:
    return _read(f"/proc/{pid}/environ")


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        pieces: list[bytes] = []
        while True:
            piece = os.read(fd, 1 << 16)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _output(argv: list[str]) -> str:
    import subprocess

    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=10, check=False,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
