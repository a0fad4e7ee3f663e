"""What an ended attempt left is fetched from its node, and brought to where the task goes on."""

from __future__ import annotations

import re
from pathlib import Path

import structlog

from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.home import Home
from dispatch_controller.loops.context import Context
from dispatch_controller.model import Observation

log = structlog.get_logger(__name__)

MOST_BYTES = 256 * 1024 * 1024
"""A larger archive stays on its node."""

_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*/salvage/[A-Za-z0-9][A-Za-z0-9._@-]*")


def is_branch(salvage: str) -> bool:
    """Whether it is a branch of the project's repository, which every node can fetch."""
    return salvage.startswith("salvage/")


async def fetch(context: Context, seen: Observation) -> None:
    """Copy an archive that an attempt left into `<home>/salvage/`. One that fails stays there."""
    path = seen.salvage
    if path is None or is_branch(path):
        return
    if not _PATH.fullmatch(path) or not path.startswith(f"{seen.project}/"):
        log.warning("salvage with an odd path", node=seen.node, task=seen.task_id, path=path)
        return
    try:
        await _fetch(context, seen.node, path)
    except (TransportLost, OSError) as error:
        log.warning("salvage not fetched", node=seen.node, task=seen.task_id, error=str(error))


async def resume(
    context: Context, node: str, salvage: str | None, left_on: str | None
) -> dict[str, str] | None:
    """Return the order's `resume` for an attempt on `node`, its archive brought there.

    None where there is nothing to go on from: then the attempt starts fresh, and says so.
    """
    if context.settings.resume != "continue" or salvage is None:
        return None
    if is_branch(salvage):
        return {"ref": salvage}
    if not _PATH.fullmatch(salvage):
        return None
    machine, root = context.fleet.machine(node), context.fleet.root(node)
    kept = _kept(context, salvage)
    try:
        if left_on is not None and left_on != node and not await context.run_sync(kept.exists):
            await _fetch(context, left_on, salvage)
        if machine is not None and await context.run_sync(kept.exists):
            await machine.put(f"{root}/{salvage}", await context.run_sync(kept.read_bytes))
        elif left_on != node:
            return None
    except (TransportLost, OSError) as error:
        log.warning(
            "salvage not brought: starting fresh", node=node, path=salvage, error=str(error)
        )
        return None
    return {"archive": salvage}


async def _fetch(context: Context, node: str, path: str) -> None:
    machine, root = context.fleet.machine(node), context.fleet.root(node)
    if machine is None:
        return
    content = await machine.get(f"{root}/{path}", limit=MOST_BYTES)
    await context.run_sync(_write, _kept(context, path), content)


def _kept(context: Context, path: str) -> Path:
    return Home(context.settings.home).root / "salvage" / path.replace("/salvage/", "/")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(content)
    beside.replace(path)
