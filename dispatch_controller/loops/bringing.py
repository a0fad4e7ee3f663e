"""What must be on a node before an attempt starts there: its code, and what the last one left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dispatch_controller.fleet.code import CodeCourier
from dispatch_controller.loops import salvage
from dispatch_controller.loops.context import Context
from dispatch_controller.model import Claim, StartOrder


class Bringer:
    """Completes orders with what it brought to their nodes."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._courier = CodeCourier(context.run_sync)

    async def bring(self, claim: Claim, order: StartOrder) -> StartOrder:
        """Return the order as it can be sent. Raises CodeUnfit, and TransportLost."""
        return await self._resumed(claim, await self._with_code(claim, order))

    async def _with_code(self, claim: Claim, order: StartOrder) -> StartOrder:
        """Have the project's folder on the node (sync_mode scp), and its name in the order.

        An HTTP worker's own machine is not reached: it has its code by its own means.
        """
        context = self._context
        project = context.knowledge.project(order.project)
        if project.sync_mode != "scp" or project.repo_local is None:
            return order
        machine, root = context.fleet.machine(claim.node), context.fleet.root(claim.node)
        if machine is None or root is None:
            return order
        folder = _folder(context.settings.projects, project.repo_local)
        return replace(order, code=await self._courier.bring(machine, root, order.project, folder))

    async def _resumed(self, claim: Claim, order: StartOrder) -> StartOrder:
        """Have the attempt go on from what the last one left, where the settings say so."""
        task = claim.task
        left_on = self._context.knowledge.failed_on.get(task.id)
        brought = await salvage.resume(self._context, claim.node, task.artifact_patch, left_on)
        return order if brought is None else replace(order, resume=brought)


def _folder(projects: Path, repo_local: str) -> Path:
    return projects / Path(repo_local).expanduser()
