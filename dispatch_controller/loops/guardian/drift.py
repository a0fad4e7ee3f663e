"""check_drift and check_wrapper_version: what the nodes run, against what they should."""

from __future__ import annotations

import structlog

from dispatch_controller.core import checks
from dispatch_controller.core.incidents import Finding, Severity
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.findings import Findings
from dispatch_controller.loops.rollout import Releases

log = structlog.get_logger(__name__)


class Drift:
    """Compares what probes say with what is wanted."""

    def __init__(
        self, context: Context, findings: Findings, releases: Releases | None = None
    ) -> None:
        self._context = context
        self._releases = releases
        self._findings = findings

    async def check_drift(self) -> None:
        """Clock skew, disks that fill, agent programs that are missing."""
        knowledge = self._context.knowledge
        found = checks.node_drift(
            {name: probe for name, probe in knowledge.probes.items() if name in knowledge.nodes},
            {key: why for key, why in knowledge.unfit.items() if key[0] in knowledge.nodes},
        )
        await self._findings.report("check_drift", found)

    async def check_rate_limits(self) -> None:
        """Executors that are parked: one incident each, with its end."""
        parked = {key: parked.until for key, parked in self._context.knowledge.parked.items()}
        now = self._context.clock.wall()
        await self._findings.report("rate_limit", checks.rate_limits(parked, now))

    async def rollout(self) -> None:
        """Follow a new wrapper: one node first, all after its first good task, or back."""
        context, releases = self._context, self._releases
        if releases is None:
            return
        failed, context.knowledge.failed_starts = context.knowledge.failed_starts, []
        releases.choose(sorted(context.knowledge.alive(context.clock.wall())))
        for node in failed:
            await releases.start_failed(node)
        await releases.task_done(context.knowledge.good_wrapper)
        taken_back = releases.current.sha256 in releases.state.bad
        await self._findings.report(
            "rollout", [_taken_back(releases.current.sha256)] if taken_back else []
        )

    async def check_wrapper_version(self) -> None:
        """A node whose wrapper is not the one it should run gets it: written beside, renamed."""
        context = self._context
        found = []
        for node in sorted(context.knowledge.nodes):
            wanted = context.fleet.wrapper_of(node)
            probe = context.knowledge.probes.get(node)
            if wanted is None or probe is None or probe.wrapper in (None, wanted):
                continue
            text = f"{node} runs wrapper {str(probe.wrapper)[:12]}, wanted is {wanted[:12]}"
            found.append(
                Finding(
                    check="check_wrapper_version",
                    key=f"wrapper:{node}",
                    severity=Severity.WARNING,
                    text=text,
                    root=f"node:{node}",
                    node=node,
                )
            )
            context.fleet.reconnect(node)
        await self._findings.report("check_wrapper_version", found)


def _taken_back(sha256: str) -> Finding:
    return Finding(
        check="rollout",
        key=f"wrapper:{sha256[:16]}",
        severity=Severity.CRITICAL,
        text=f"the new wrapper {sha256[:16]} failed two starts and was taken back: nodes keep the"
        " one before it",
        root="wrapper",
    )
