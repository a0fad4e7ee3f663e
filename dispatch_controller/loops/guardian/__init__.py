"""The guardian: what no single task shows, found, told once, and mended where that is safe."""

from __future__ import annotations

from dispatch_controller.loops.context import Context
from dispatch_controller.loops.findings import Findings
from dispatch_controller.loops.guardian.connections import Connections
from dispatch_controller.loops.guardian.drift import Drift
from dispatch_controller.loops.guardian.graph import Graph
from dispatch_controller.loops.guardian.retries import auto_retry_failed_tasks
from dispatch_controller.loops.guardian.tasks import check_deadletters, check_task_stuck
from dispatch_controller.loops.rollout import Releases
from dispatch_controller.runtime.cadence import Cadence
from dispatch_controller.runtime.every import every
from dispatch_controller.runtime.substeps import Substep, run_substeps


class Guardian:
    """The guardian loop (loops.md, Guardian)."""

    def __init__(
        self, context: Context, findings: Findings, releases: Releases | None = None
    ) -> None:
        self._context = context
        self._findings = findings
        self._cadence = Cadence()
        self._graph = Graph(context, findings)
        self._drift = Drift(context, findings, releases)
        self._connections = Connections(context, findings)

    async def run(self) -> None:
        context = self._context
        await every(
            self.step,
            context.stats["guardian"],
            interval=context.settings.loops.guardian.interval,
            wake=context.wakes.guardian,
            stop=context.stop,
            clock=context.clock,
        )

    async def step(self, cycle: int) -> None:
        """All checks that are due; each one's failure is its own."""
        context, findings = self._context, self._findings
        substeps: dict[str, Substep] = {
            "check_task_stuck": lambda: check_task_stuck(context, findings),
            "check_dag_stuck": self._graph.check_dag_stuck,
            "check_deadletters": lambda: check_deadletters(context, findings),
            "auto_retry_failed_tasks": lambda: auto_retry_failed_tasks(context),
            "check_drift": self._drift.check_drift,
            "check_rate_limits": self._drift.check_rate_limits,
            "rollout": self._drift.rollout,
        }
        if self._cadence.due("wrapper", cycle, 10):
            substeps["check_wrapper_version"] = self._drift.check_wrapper_version
        if self._cadence.due("ssh", cycle, 10):
            substeps["check_ssh_connection"] = self._connections.check_ssh_connection
        await run_substeps("guardian", cycle, substeps)
