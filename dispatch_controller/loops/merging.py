"""Completed attempts of git projects are merged first and recorded then.

Why: docs/decisions/0006-merged-before-completed.md.

So a dependent, which starts once its parents are completed, starts from a main branch that has
their work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog
import trio

from dispatch_controller.core import ids
from dispatch_controller.core.reports import Finish, judge
from dispatch_controller.fleet.merge import MergeConflict, MergeFailed, Merger, Work
from dispatch_controller.fleet.ssh_settings import SshSettings
from dispatch_controller.home import Home
from dispatch_controller.loops.context import Context
from dispatch_controller.model import HELD, Observation, RunState, Task
from dispatch_controller.store import events, reports, tasks

log = structlog.get_logger(__name__)

MOST_TRIES = 10
"""Merges of one attempt that may fail for a reason that could pass; one a collection."""


class Merging:
    """Merges completed attempts, each before it is recorded.

    Whatever ends before that (this process too) leaves the attempt unrecorded: its node tells it
    again, and merging again what is merged already changes nothing.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._merger = Merger(
            Home(context.settings.home).repos, SshSettings(**context.settings.ssh.model_dump())
        )
        self._under_way: set[str | None] = set()
        """Leases."""
        self._failures: Counter[str] = Counter()

    def concerns(self, seen: Observation) -> bool:
        """Return whether `seen` is an attempt that must be merged before it is recorded."""
        if seen.state is not RunState.COMPLETED or seen.git_branch is None or seen.lease is None:
            return False
        project = self._context.knowledge.project(seen.project)
        return project.sync_mode == "git" and project.repo_url is not None

    def begin(
        self,
        seen: Observation,
        nursery: trio.Nursery,
        land: Callable[[Observation], Awaitable[None]],
    ) -> None:
        """Merge in `nursery`, then give on to `land` what is to be recorded."""

        async def run() -> None:
            try:
                found = await self.merge(seen)
                if found is not None:
                    await land(found)
            finally:
                self._under_way.discard(seen.lease)

        if seen.lease not in self._under_way:
            self._under_way.add(seen.lease)
            nursery.start_soon(run, name=f"merge {seen.task_id}")

    async def merge(self, seen: Observation) -> Observation | None:
        """Return what is to be recorded; None where it could not be merged now: try again."""
        in_flight, lease = self._context.knowledge.in_flight, seen.lease or ""
        in_flight.add(lease)  # nobody takes the task for a ghost meanwhile
        try:
            found = await self._merged(seen)
        finally:
            in_flight.discard(lease)
        if found is not None:
            self._failures.pop(lease, None)
        return found

    async def _merged(self, seen: Observation) -> Observation | None:
        context = self._context
        (seen,) = await context.store.read(reports.named, [seen])
        task = await context.store.read(tasks.get, seen.task_id or "")
        if seen.outside and seen.project in context.knowledge.owned_fails:
            seen = await context.store.read(reports.respect_owners, seen)
        verdict = judge(task, seen, context.knowledge.endings)
        if task is None or not (isinstance(verdict, Finish) and verdict.completed):
            return seen
        work = await self._work(task, seen)

        async def still_ours() -> bool:
            row = await context.store.read(tasks.get, task.id)
            return row is not None and row.status in HELD and row.lease_owner == seen.lease

        try:
            merged = await self._merger.merge(work, still_ours)
        except MergeConflict as conflict:
            return _failed(seen, "merge_conflict", f"{work.branch} into {work.main}: {conflict}")
        except MergeFailed as failure:
            return self._again(seen, work, str(failure))
        log.info("merged", task=task.id, branch=work.branch, lease=seen.lease, pushed=merged)
        return seen  # where the lease was lost meanwhile, recording it says so

    def _again(self, seen: Observation, work: Work, why: str) -> Observation | None:
        lease = seen.lease or ""
        self._failures[lease] += 1
        log.warning("not merged", task=seen.task_id, branch=work.branch, error=why)
        if self._failures[lease] < MOST_TRIES:
            return None
        return _failed(seen, "merge_failed", f"{work.branch} could not be merged: {why}")

    async def _work(self, task: Task, seen: Observation) -> Work:
        """The node says only which of two names, both made from our rows, it pushed to."""
        project = self._context.knowledge.project(task.project)
        lease = task.lease_owner or ""
        branch = ids.branch_name(task.project, task.id, task.node or "", task.attempt)
        if seen.git_branch != branch:
            sequence = await self._context.store.read(events.claim_sequence, task.id, lease)
            if sequence is not None and seen.git_branch == ids.branch_again(branch, sequence):
                branch = ids.branch_again(branch, sequence)
        return Work(
            project=task.project,
            url=project.repo_url or "",
            main=project.main_branch,
            branch=branch,
            message=f"Merge {task.id}\n\nDispatch-Attempt: {task.attempt}\nDispatch-Lease: {lease}",
        )


def _failed(seen: Observation, reason: str, error: str) -> Observation:
    return replace(seen, state=RunState.FAILED, reason=reason, error=error)
