"""Evidence that the system's memory limit killed something: counters that the kernel keeps."""

from __future__ import annotations

import functools
import re
import time

from dispatch_controller.fleet.wrapper import procs

_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def recent_oom_kills() -> int:
    """As oom_kills, at most a second old: `serve` asks for every start."""
    return _counted_in(int(time.monotonic()))


@functools.lru_cache(maxsize=1)
def _counted_in(second: int) -> int:
    del second  # only the key: another second is another count
    return oom_kills()


def oom_kills() -> int:
    """Kills for want of memory so far, of this machine and of our own cgroup; 0 where unknown."""
    if not procs.LINUX:
        return 0
    count = _read("/proc/vmstat")
    group = re.search(r"^0::(.*)$", _text("/proc/self/cgroup"), re.MULTILINE)
    if group:
        count += _read(f"/sys/fs/cgroup{group.group(1)}/memory.events")
    return count


def _read(path: str) -> int:
    found = _COUNT.search(_text(path))
    return int(found.group(1)) if found else 0


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
