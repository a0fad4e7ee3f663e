"""Orders for tests."""

from __future__ import annotations

import os

from dispatch_controller.model import ExecutorCommand, StartOrder, TaskRef

RUN = f"n{os.getpid()}"
"""Node part of the leases: a wrapper looks for leftovers by lease, so two runs of the tests on one
machine must not share any."""
SHELL = ExecutorCommand("shell", ("{shell}", "-c", "{script}"))


def an_order(
    folder: str = "T1",
    *,
    spec: str = "# do it",
    lease: str | None = None,
    sequence: int = 1,
    attempt: int | None = None,
    timeout: int = 7200,
    gates: tuple[str, ...] = ("exit",),
) -> StartOrder:
    return StartOrder(
        project="p",
        task_id=folder,
        folder=folder,
        lease=lease or f"{RUN}:{sequence:08x}",
        attempt=attempt or sequence,
        sequence=sequence,
        spec=spec,
        context="",
        timeout=timeout,
        executor=SHELL,
        gates=gates,
        verify=None,
        modifies=("a.txt",),
    )


def ref_of(order: StartOrder) -> TaskRef:
    return TaskRef(order.project, order.folder, order.lease)
