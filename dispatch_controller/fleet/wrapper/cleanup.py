"""Removing folders whose content is reachable elsewhere, and salvaging on demand."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper.fence import Decision, word
from dispatch_controller.fleet.wrapper.layout import checked_name
from dispatch_controller.fleet.wrapper.previous import save_dead
from dispatch_controller.fleet.wrapper.report import lost
from dispatch_controller.fleet.wrapper.salvage import Number, save_folder
from dispatch_controller.fleet.wrapper.taskdir import is_final, open_dir, read_status, try_lock
from dispatch_controller.fleet.wrapper.watch import Watch

if TYPE_CHECKING:
    from typing import Any

    from dispatch_controller.fleet.wrapper.fence import Fence
    from dispatch_controller.fleet.wrapper.layout import Layout


def cleanup(layout: Layout, fence: Fence, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """The result of the `cleanup` verb. Raises BadName."""
    removed, kept = [], []
    for task in tasks:
        project = checked_name(task.get("project"), "project")
        folder = checked_name(task.get("folder"), "folder")
        named = {"project": project, "folder": folder}
        reason = _remove(layout, fence, project, folder)
        if reason is None:
            removed.append(named)
        else:
            kept.append({**named, "reason": reason})
    return {"removed": removed, "kept": kept}


def _remove(layout: Layout, fence: Fence, project: str, folder: str) -> str | None:
    """Remove one folder; the reason why not, None when it is gone."""
    import shutil  # late: `serve` does not carry what only its children need

    path = layout.task(project, folder)
    try:
        fd = open_dir(path)
    except FileNotFoundError:
        return None
    except OSError as e:
        return str(e)
    try:
        if not try_lock(fd, 0.1):
            return "alive: a process holds the task"
        status, broken = read_status(fd)
        if broken:
            return "its status.json cannot be read"
        if status is not None:
            key = word(project, folder, str(status.get("lease")))
            if status.get("lease") and key not in fence.acks:
                return "its end was not acknowledged"
            number = Number(status.get("attempt", 0), status.get("sequence"))
            saved = save_folder(layout, project, folder, number, logs=True)
            del saved
            # The folder knew its last attempt; from now on the void record keeps that lease out.
            fence.voids.add([key], durable=True)
        with Decision(layout, project, shared=False):
            gone = f"{layout.tasks(project)}/.gone-{folder}"
            shutil.rmtree(gone, ignore_errors=True)
            os.rename(path, gone)
        shutil.rmtree(gone, ignore_errors=True)
    except OSError as e:
        return str(e)
    finally:
        os.close(fd)
    return None


def salvage(layout: Layout, project: str, folder: str) -> dict[str, Any]:
    """The result of the `salvage` verb: what was saved already, or is saved now. Raises OSError."""
    nothing = {"path": None, "ref": None, "size": 0}
    try:
        fd = open_dir(layout.task(project, folder))
    except OSError:
        return nothing
    try:
        status, _ = read_status(fd)
        if status is None:
            return nothing
        where = status.get("salvage")
        if isinstance(where, str) and is_final(status):
            return _told(layout, where)
        saved = save_dead(layout, project, folder, lost(status), Watch(fd, 0.0))
    finally:
        os.close(fd)
    return {"path": saved.path, "ref": saved.ref, "size": saved.size}


def _told(layout: Layout, where: str) -> dict[str, Any]:
    if where.startswith("salvage/"):
        return {"path": None, "ref": where, "size": 0}
    try:
        size = os.stat(os.path.join(layout.root, where)).st_size
    except OSError:
        size = 0
    return {"path": where, "ref": None, "size": size}
