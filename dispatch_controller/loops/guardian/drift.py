"""check_drift and check_wrapper_version: what the nodes run, against what they should."""

from __future__ import annotations

import structlog

from dispatch_controller.core import checks
from dispatch_controller.core.incidents import Finding, Severity
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.findings import Findings

log = structlog.get_logger(__name__)


class Drift:
    """Compares what probes say with what is wanted."""

    def __init__(self, context: Context, findings: Findings) -> None:
        self._context = context
        self._findings = findings

    async def check_drift(self) -> None:
        """Clock skew, disks that fill, agent programs that are missing."""
        knowledge = self._context.knowledge
        found = checks.node_drift(
            {name: probe for name, probe in knowledge.probes.items() if name in knowledge.nodes},
            {key: why for key, why in knowledge.unfit.items() if key[0] in knowledge.nodes},
        )
        await self._findings.report("check_drift", found)

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
