"""check_ssh_connection: each SSH node's pooled connection answers within 10 s."""

from __future__ import annotations

from collections import Counter

import structlog
import trio

from dispatch_controller.core.incidents import Finding, Severity
from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.findings import Findings
from dispatch_controller.store import reputation

log = structlog.get_logger(__name__)

FAILURES = 3
"""Failed checks in a row after which a node is quarantined."""


class Connections:
    """Counts each node's failed checks in a row."""

    def __init__(self, context: Context, findings: Findings) -> None:
        self._context = context
        self._findings = findings
        self._failures: Counter[str] = Counter()
        self._errors: dict[str, str] = {}

    async def check_ssh_connection(self) -> None:
        """Check all at once; a connection that does not answer was closed by the check."""
        context = self._context
        async with trio.open_nursery() as nursery:
            for node in context.knowledge.nodes.values():
                by_worker = context.workers.serves(node.name)
                if node.enabled and node.ssh_host is not None and not by_worker:
                    nursery.start_soon(self._check, node.name, name=f"ssh {node.name}")
        await self._findings.report(
            "check_ssh_connection",
            [
                Finding(
                    check="check_ssh_connection",
                    key=f"ssh:{node}",
                    severity=Severity.CRITICAL if count >= FAILURES else Severity.WARNING,
                    text=f"the SSH connection to {node} does not answer: {self._errors[node]}",
                    root=f"node:{node}",
                    node=node,
                )
                for node, count in sorted(self._failures.items())
                if count
            ],
        )

    async def _check(self, node: str) -> None:
        context = self._context
        try:
            await context.fleet.check_connection(node)
        except TransportLost as lost:
            self._failures[node] += 1
            self._errors[node] = str(lost)
            context.fleet.reconnect(node)
        else:
            del self._failures[node]
            return
        if self._failures[node] >= FAILURES and context.reputation:
            await context.store.write(
                reputation.quarantine, context.clock.wall(), node,
                f"{self._failures[node]} SSH checks in a row failed",
            )  # fmt: skip
