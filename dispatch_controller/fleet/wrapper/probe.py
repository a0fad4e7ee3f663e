"""How the node is: load, memory, disk, versions of the programs that were asked for."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import procs
from dispatch_controller.fleet.wrapper.clock import now
from dispatch_controller.fleet.wrapper.environment import base_environment, find_program

if TYPE_CHECKING:
    import subprocess
    from typing import Any

_PATIENCE = 8.0
_VERSION = re.compile(r"\d+(?:\.\d+)+[\w.+-]*")


def probe(root: str, wrapper: str, programs: list[str]) -> dict[str, Any]:
    """The result of the `probe` verb. Bytes, Unix seconds."""
    disk = os.statvfs(root)
    total, free = _memory()
    versions = _versions([*programs, "git"])
    git = versions.pop("git") if "git" not in programs else versions["git"]
    return {
        "now": now(),
        "load": list(os.getloadavg()),
        "cpus": os.cpu_count() or 1,
        "memory_total": total,
        "memory_free": free,
        "disk_total": disk.f_blocks * disk.f_frsize,
        "disk_free": disk.f_bavail * disk.f_frsize,
        "wrapper": wrapper,
        "python": "{}.{}.{}".format(*sys.version_info[:3]),
        "git": git["version"],
        "boot_id": procs.boot_id(),
        "agents": {name: versions[name] for name in programs},
    }


def _versions(programs: list[str]) -> dict[str, dict[str, str | None]]:
    """`<program> --version` of all at once; a program that hangs has no version."""
    import subprocess

    paths = {name: find_program(name) for name in programs}
    env = base_environment()
    running = {}
    for name, path in paths.items():
        if path:
            try:
                running[name] = subprocess.Popen(
                    [path, "--version"], env=env, cwd="/", stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            except OSError:
                continue
    until = time.monotonic() + _PATIENCE
    said = {name: _said(process, until) for name, process in running.items()}
    return {name: {"version": said.get(name), "path": paths[name]} for name in programs}


def _said(process: subprocess.Popen[bytes], until: float) -> str | None:
    import subprocess

    try:
        raw, _ = process.communicate(timeout=max(0.1, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return None
    if process.returncode != 0:
        return None
    found = _VERSION.search(raw[:2000].decode(errors="replace"))
    return found.group() if found else None


def _memory() -> tuple[int | None, int | None]:
    """(total, available) bytes."""
    page = os.sysconf("SC_PAGE_SIZE")
    if procs.LINUX:
        with open("/proc/meminfo") as file:
            sizes: dict[str, str] = dict(re.findall(r"^(\w+):\s+(\d+) kB$", file.read(), re.M))
        available = sizes.get("MemAvailable", sizes.get("MemFree", "0"))
        return int(sizes["MemTotal"]) * 1024, int(available) * 1024
    import subprocess

    try:
        total = os.sysconf("SC_PHYS_PAGES") * page
        said = subprocess.run(
            ["/usr/bin/vm_stat"], capture_output=True, text=True, timeout=5, check=False
        ).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return None, None
    pages = dict(re.findall(r"^Pages (free|inactive|speculative):\s+(\d+)\.", said, re.MULTILINE))
    return total, sum(int(n) for n in pages.values()) * page
