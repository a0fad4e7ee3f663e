"""The reaper: what the nodes say is brought in, and what it leaves undone is put right."""

from __future__ import annotations

import trio

from dispatch_controller.loops.context import Context
from dispatch_controller.loops.reaper.collect import Collector
from dispatch_controller.loops.reaper.endings import finish_endings
from dispatch_controller.loops.reaper.leases import cleanup_stale_leases, settle_claims
from dispatch_controller.loops.reaper.recovery import auto_recover_nodes
from dispatch_controller.loops.reaper.retries import retry_failed
from dispatch_controller.loops.reaper.stale import cleanup_stale_processes
from dispatch_controller.loops.reaper.stuck import Watch
from dispatch_controller.loops.recorder import Recorder
from dispatch_controller.runtime.cadence import Cadence
from dispatch_controller.runtime.every import every
from dispatch_controller.runtime.substeps import Substep, run_substeps
from dispatch_controller.store import file_locks, nodes


class Reaper:
    """The reaper loop (loops.md, Reaper), and the intake of what nodes tell unasked."""

    def __init__(self, context: Context, recorder: Recorder) -> None:
        self._context = context
        self._recorder = recorder
        self._watch = Watch(context)
        self._collector = Collector(context, recorder, self._watch)
        self._cadence = Cadence()

    async def run(self) -> None:
        context = self._context
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._recorder.run, name="intake")
            await every(
                self.step,
                context.stats["reaper"],
                interval=context.settings.loops.reaper.interval,
                wake=context.wakes.reaper,
                stop=context.stop,
                clock=context.clock,
            )
            self._recorder.wake()

    async def step(self, cycle: int) -> None:
        """All sub-steps that are due; each one's failure is its own.

        A woken step does what it was woken for: retries, endings, starts that are not confirmed. It
        asks no node for all its tasks, unless the clock has jumped.
        """
        context, recorder = self._context, self._recorder
        timed = self._cadence.due("timed", cycle, 1)
        substeps: dict[str, Substep] = {}
        if timed or context.knowledge.ask_all:
            substeps["collect_task_status"] = self._collector.collect
            substeps["reap_stuck"] = self._watch.reap_stuck
        else:
            substeps["settle_claims"] = lambda: settle_claims(context, recorder)
        substeps["finish_endings"] = lambda: finish_endings(context, recorder)
        substeps["retry_failed"] = lambda: retry_failed(context)
        if timed:
            substeps["cleanup_stale_leases"] = lambda: cleanup_stale_leases(context)
            substeps["cleanup_stale_file_locks"] = lambda: context.store.write(
                file_locks.release_stale
            )
            substeps["sync_running_counts"] = lambda: context.store.write(nodes.sync_running_counts)
        if self._cadence.due("processes", cycle, 10):
            substeps["cleanup_stale_processes"] = lambda: cleanup_stale_processes(context)
        if self._cadence.due("recovery", cycle, 5):
            substeps["auto_recover_nodes"] = lambda: auto_recover_nodes(context)
        await run_substeps("reaper", cycle, substeps)
