"""Sub-steps of a loop's step: one that fails stops no other, and none fails unseen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import structlog

log = structlog.get_logger(__name__)

Substep = Callable[[], Awaitable[object]]


async def run_substeps(loop: str, cycle: int, substeps: Mapping[str, Substep]) -> None:
    """Run all in their order, then raise an ExceptionGroup of what failed, if anything did.

    So the step counts as failed and the loop backs off, after everything else was done.
    """
    failures: list[Exception] = []
    for name, substep in substeps.items():
        try:
            await substep()
        except Exception as error:  # noqa: BLE001 - raised again below, when the others had a turn
            log.warning("sub-step failed", loop=loop, cycle=cycle, substep=name, error=repr(error))
            error.add_note(f"in {loop}.{name}, cycle {cycle}")
            failures.append(error)
    if failures:
        raise ExceptionGroup(f"{loop}: {len(failures)} of {len(substeps)} sub-steps", failures)
