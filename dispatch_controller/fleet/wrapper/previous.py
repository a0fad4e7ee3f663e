"""What an earlier attempt left in the task's folder: its lock, its files."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import log, procs, salvage
from dispatch_controller.fleet.wrapper.ending import Tree
from dispatch_controller.fleet.wrapper.environment import base_environment, find_program
from dispatch_controller.fleet.wrapper.fence import Decision
from dispatch_controller.fleet.wrapper.git import Ended, GitFailed, Repo
from dispatch_controller.fleet.wrapper.measure import Trees
from dispatch_controller.fleet.wrapper.taskdir import is_final, open_dir, read_status, try_lock
from dispatch_controller.fleet.wrapper.watch import END

if TYPE_CHECKING:
    from typing import Any

    from dispatch_controller.fleet.wrapper.launch import Launch
    from dispatch_controller.fleet.wrapper.layout import Layout
    from dispatch_controller.fleet.wrapper.watch import Watch

_SETTLE = 2.0


def wrest_lock(launch: Launch, watch: Watch) -> bool:
    """Take the lock from leftovers of an attempt whose status is final: they block nothing.

    They are ended; where one survives even that, the folder's content moves into a new folder,
    whose lock is free. False when meanwhile another attempt lives.
    """
    if try_lock(launch.dir_fd, _SETTLE):
        return True
    status, _ = read_status(launch.dir_fd)
    if status is None or not is_final(status):
        return False
    lease = status.get("lease")
    if isinstance(lease, str) and status.get("boot_id") == procs.boot_id():
        left = Tree(group=None, below=None, lease=lease).end(watch, 2.0)
        log.note(
            launch.dir_fd, f"ended what attempt {status.get('attempt')} left; survived: {left}"
        )
    if try_lock(launch.dir_fd, _SETTLE):
        return True
    return _move_into_new_folder(launch)


def _move_into_new_folder(launch: Launch) -> bool:
    path = launch.layout.task(launch.order.project, launch.order.folder)
    tasks = launch.layout.tasks(launch.order.project)
    new = f"{tasks}/.new-{launch.order.folder}"
    with Decision(launch.layout, launch.order.project, shared=False):
        status, _ = read_status(launch.dir_fd)
        if not is_final(status):
            return False
        os.makedirs(new, exist_ok=True)
        # status.json last: until then the old folder is the whole truth about the task.
        for name in sorted(os.listdir(path), key=lambda n: n == "status.json"):
            os.rename(f"{path}/{name}", f"{new}/{name}")
        os.rmdir(path)
        os.rename(new, path)
        fd = open_dir(path)
        locked = try_lock(fd)
        os.dup2(fd, launch.dir_fd, inheritable=False)
        os.close(fd)
    return locked


def retire(launch: Launch, watch: Watch) -> None:
    """Make room for a new attempt: salvage what the last one left, then clear it away.

    The log stays, as task.<attempt>.log. Raises OSError.
    """
    order, layout = launch.order, launch.layout
    path = layout.task(order.project, order.folder)
    status, _ = read_status(launch.dir_fd)
    attempt = status.get("attempt", 0) if status else 0
    if status and not status.get("salvage") and not status.get("git_push_ok"):
        saved = save_dead(layout, order.project, order.folder, status, watch)
        if saved.where:
            log.note(launch.dir_fd, f"salvaged attempt {attempt}: {saved.where}")
    import shutil

    for part in ("output", "repo"):
        shutil.rmtree(f"{path}/{part}", ignore_errors=True)
    for name in ("heartbeat", "pid", END):
        _unlink(f"{path}/{name}")
    if os.path.lexists(f"{path}/task.log"):
        os.rename(f"{path}/task.log", f"{path}/task.{attempt}.log")


def save_dead(
    layout: Layout, project: str, folder: str, status: dict[str, Any], watch: Watch
) -> salvage.Salvaged:
    """Salvage an attempt from its files alone, its supervisor being gone. Raises OSError."""
    path = layout.task(project, folder)
    number = salvage.Number(status.get("attempt", 0), status.get("sequence"))
    if os.path.isdir(f"{path}/repo/.git"):
        git = find_program("git")
        base = status.get("git_base")
        if git and isinstance(base, str):
            repo = Repo(f"{path}/repo", git, base_environment(), watch)
            repo.base = base
            try:
                if not repo.changes().any:
                    return salvage.Salvaged()
                return salvage.save_repo(layout, project, folder, number, repo)
            except (GitFailed, Ended):
                pass  # packed as files below
        return salvage.save_folder(layout, project, folder, number)
    code = status.get("code")
    where = f"{layout.project(project)}/{code}" if isinstance(code, str) else f"{path}/output"
    changes = Trees(path, where, _started_ns(path)).changes()
    if not changes.files:
        return salvage.Salvaged()
    return salvage.save_files(layout, project, folder, number, changes)


def _started_ns(path: str) -> int:
    """The start as the file system's clock had it: spec.md is written right before."""
    try:
        return os.stat(f"{path}/spec.md").st_mtime_ns
    except OSError:
        return time.time_ns()


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
