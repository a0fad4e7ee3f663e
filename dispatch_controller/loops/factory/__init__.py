"""factory: feeds the queue, from evidence (loops.md, Factory)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog
import trio

from dispatch_controller.core import generation, ledger
from dispatch_controller.core.allowance import allowance, failure_rate, within_day
from dispatch_controller.core.generation import Decision, ProjectState
from dispatch_controller.core.times import iso
from dispatch_controller.factory.anthropic import Anthropic
from dispatch_controller.factory.command import Command
from dispatch_controller.factory.drafts import Drafts
from dispatch_controller.factory.gaps import Gaps
from dispatch_controller.factory.generator import Generator, GeneratorFailed
from dispatch_controller.factory.model import Model
from dispatch_controller.factory.openai import OpenAI
from dispatch_controller.factory.sources import Fetch, fetch
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.factory.editor import Editor, Outcome
from dispatch_controller.loops.factory.memory import Memory, Purse
from dispatch_controller.loops.factory.pauses import Pauses
from dispatch_controller.loops.factory.projects import Projects
from dispatch_controller.loops.factory.research import Research
from dispatch_controller.loops.operator import NotFound
from dispatch_controller.loops.registrar import Registrar
from dispatch_controller.runtime.every import every
from dispatch_controller.runtime.substeps import run_substeps

log = structlog.get_logger(__name__)

MODELS = ("anthropic", "openai")


@dataclass(frozen=True, slots=True)
class _Run:
    """What is special about one cycle."""

    project: str | None = None
    """Only this one."""
    dry_run: bool | None = None


class Factory:
    """The factory loop. `run_once` works with the loop off."""

    def __init__(self, context: Context, registrar: Registrar, fetch: Fetch = fetch) -> None:
        self._context = context
        self._memory = Memory(context)
        self._drafts = Drafts(context.settings.home / "drafts")
        self._projects = Projects(context, self._drafts)
        self._editor = Editor(context, registrar, self._memory, self._drafts)
        self._research = Research(context, self._projects, self._memory, fetch)
        self._pauses = Pauses(context.settings.loops.factory.interval)
        self._generators = self._build(Purse(self._memory, context))
        self._told: set[tuple[str, str]] = set()
        self._cycle = trio.Lock()
        self._deadline = 0.0
        self._done: list[dict[str, Any]] = []

    def _build(self, purse: Purse) -> dict[str, Generator]:
        context = self._context
        settings = context.settings.factory
        models = {
            dialect.name: Model(
                dialect,
                getattr(settings, dialect.name),
                prompt=settings.prompt_file,
                purse=purse,
                clock=context.clock,
                run_sync=context.run_sync,
            )
            for dialect in (Anthropic(), OpenAI())
        }
        return {
            "gaps": Gaps(context.run_sync, settings.check_timeout),
            "command": Command(context.run_sync, settings.command),
            **models,
        }

    async def run(self) -> None:
        context = self._context
        await every(
            self.step,
            context.stats["factory"],
            interval=context.settings.loops.factory.interval,
            wake=context.wakes.factory,
            stop=context.stop,
            clock=context.clock,
        )

    async def step(self, cycle: int) -> None:
        await self._one_cycle(cycle, _Run())

    async def run_once(
        self, project: str | None = None, *, dry_run: bool | None = None
    ) -> list[dict[str, Any]]:
        """Do one cycle now, whatever waits after a failure; return what was done, and why.

        Raises NotFound for a project that nobody knows, NotPossible without projects.json.
        """
        states = await self._states()
        if project is not None and project not in states:
            raise NotFound(f"there is no project {project}")
        self._pauses.forget()
        return await self._one_cycle(0, _Run(project, dry_run))

    async def _one_cycle(self, cycle: int, run: _Run) -> list[dict[str, Any]]:
        async with self._cycle:
            self._done = []
            self._deadline = trio.current_time() + self._context.settings.factory.step_limit
            await run_substeps(
                "factory",
                cycle,
                {
                    "check_and_iterate_projects": partial(self.iterate_projects, cycle, run),
                    "auto_generate_specs": partial(self.generate_specs, cycle, run),
                    "research_and_discover": self.research,
                },
            )
            return self._done

    async def iterate_projects(self, cycle: int, run: _Run) -> None:
        """Ask for the next generation of every project that is through with the last one."""
        states = await self._states(run)
        decisions = self._iterations(states)
        await run_substeps(
            "factory",
            cycle,
            {
                decision.project: partial(self._iterate, states[decision.project], decision, run)
                for decision in decisions
                if decision.wanted
            },
        )

    async def generate_specs(self, cycle: int, run: _Run) -> None:
        """Ask for specs while too little is pending."""
        states = await self._states(run)
        settings = self._context.settings.factory
        left = generation.shortage(list(states.values()), settings.min_pending, settings.per_cycle)

        async def ask(decision: Decision) -> None:
            nonlocal left
            if left > 0:
                wanted = min(decision.wanted, left)
                state = states[decision.project]
                left -= await self._generate(state, replace(decision, wanted=wanted), run)

        await run_substeps(
            "factory",
            cycle,
            {d.project: partial(ask, d) for d in self._top_ups(states) if d.wanted},
        )

    async def research(self) -> None:
        new = await self._research.step()
        if new:
            self._done.append({"step": "research_and_discover", "new": new})

    async def _states(self, run: _Run | None = None) -> dict[str, ProjectState]:
        """Return how the projects stand, those that must wait closed."""
        known = await self._memory.ledger()
        now = self._context.clock.wall()
        found = {}
        for state in await self._projects.states(known):
            waits = self._pauses.why(state.policy.generator, state.name, state.counts, now)
            if waits is not None and state.closed is None:
                state = replace(state, closed=waits)
            if run is not None and run.project not in (None, state.name):
                state = replace(state, closed=f"only {run.project} was asked for")
            found[state.name] = state
        return found

    def _iterations(self, states: Mapping[str, ProjectState]) -> list[Decision]:
        per_cycle, now = self._context.settings.factory.per_cycle, self._context.clock.wall()
        return [generation.iterate(state, per_cycle, now) for state in states.values()]

    def _top_ups(self, states: Mapping[str, ProjectState]) -> list[Decision]:
        settings, now = self._context.settings.factory, self._context.clock.wall()
        return generation.top_up(
            list(states.values()), settings.min_pending, settings.per_cycle, now
        )

    async def _iterate(self, state: ProjectState, decision: Decision, run: _Run) -> None:
        if self._waits(state):
            return
        # Before the generator is asked: one that fails is not asked by this step within the hour.
        await self._memory.tell(ledger.ITERATION, project=state.name)
        await self._generate(state, decision, run)

    def _waits(self, state: ProjectState) -> bool:
        """Whether its generator was found wanting since the decision fell."""
        now = self._context.clock.wall()
        return (
            self._pauses.why(state.policy.generator, state.name, state.counts, now) is not None
            or trio.current_time() >= self._deadline
        )

    async def _generate(self, state: ProjectState, decision: Decision, run: _Run) -> int:
        """Ask the project's generator; return how many specs came of it. A failure is an event."""
        name, generator = state.name, state.policy.generator
        if self._waits(state):
            return 0
        outcome = Outcome()
        try:
            with trio.move_on_at(self._deadline) as scope:
                outcome = await self._ask(state, decision.wanted, run, scope)
            if scope.cancelled_caught:
                limit = self._context.settings.factory.step_limit
                raise GeneratorFailed(f"it took more than the {limit:g} s of a cycle")
        except GeneratorFailed as failed:
            await self._failed(state, decision, str(failed), failed.retry_at)
            return 0
        except OSError as error:
            await self._failed(state, decision, f"{error.filename or name}: {error.strerror}", None)
            return 0
        now = self._context.clock.wall()
        if outcome.made:
            self._pauses.made(generator, name)
        else:
            self._pauses.nothing(generator, name, state.counts, now)
        self._done.append(
            {
                "step": decision.step,
                "project": name,
                "generator": generator,
                "why": decision.why,
                "registered": outcome.registered,
                "drafts": outcome.held,
                "rejected": outcome.rejected,
                "repeated": outcome.repeated,
            }
        )
        return outcome.made

    async def _ask(
        self, state: ProjectState, wanted: int, run: _Run, scope: trio.CancelScope
    ) -> Outcome:
        known = await self._memory.ledger()
        prepared = await self._projects.prepare(state, wanted, known.projects[state.name])
        if prepared.strays:
            await self._editor.adopt(prepared)
            return Outcome()
        generated = await self._generators[state.policy.generator].generate(prepared.request)
        scope.deadline = math.inf  # what was paid for is written, limit or not
        for remark in generated.remarks:
            if (state.name, remark) not in self._told:
                self._told.add((state.name, remark))
                await self._memory.tell(ledger.CHECK, project=state.name, remark=remark)
        return await self._editor.take(
            generated.candidates,
            prepared,
            self._projects.folder(state.name),
            generator=state.policy.generator,
            dry_run=state.policy.dry_run if run.dry_run is None else run.dry_run,
        )

    async def _failed(
        self, state: ProjectState, decision: Decision, reason: str, retry_at: float | None
    ) -> None:
        generator = state.policy.generator
        now = self._context.clock.wall()
        self._pauses.failed(generator, state.name, reason, now, retry_at)
        log.warning("generator failed", loop="factory", project=state.name, reason=reason)
        self._done.append(
            {
                "step": decision.step,
                "project": state.name,
                "generator": generator,
                "why": decision.why,
                "failed": reason,
            }
        )
        await self._memory.tell(
            ledger.FAILED, project=state.name, generator=generator, reason=reason
        )

    async def plan(self, project: str | None = None) -> dict[str, Any]:
        """Return what a cycle would do now and why, with what that rests on. Asks no generator."""
        states = await self._states()
        known, now = await self._memory.ledger(), self._context.clock.wall()
        decisions = [*self._iterations(states), *self._top_ups(states)]
        due = await self._research.due()
        return {
            "enabled": self._context.settings.loops.factory.enabled,
            "pending": sum(state.counts.get("pending", 0) for state in states.values()),
            "min_pending": self._context.settings.factory.min_pending,
            "projects": [
                {
                    "project": state.name,
                    "generator": state.policy.generator,
                    "dry_run": state.policy.dry_run,
                    "tasks": dict(state.counts),
                    "made": within_day(state.made, now),
                    "allowance": allowance(state.policy.per_day, state.generated),
                    "failure_rate": round(failure_rate(state.ended), 3),
                    "steps": [
                        {"step": d.step, "wanted": d.wanted, "why": d.why}
                        for d in decisions
                        if d.project == state.name
                    ],
                }
                for state in states.values()
                if project in (None, state.name)
            ],
            "research": {
                "sources": sorted(self._context.settings.factory.sources),
                "due": iso(due) if due else None,
            },
            "spent": {
                name: dict(zip(("tokens", "cost"), known.spent(name, now), strict=True))
                for name in MODELS
            },
        }

    async def drafts(self, project: str | None = None) -> list[dict[str, Any]]:
        """Return the drafts, each with its text."""
        return await self._context.run_sync(self._read_drafts, project)

    def _read_drafts(self, project: str | None) -> list[dict[str, Any]]:
        return [
            {
                "id": draft.id,
                "project": draft.project,
                "state": draft.state,
                "reason": draft.reason,
                "generator": draft.generator,
                "generation": draft.generation,
                "at": draft.at,
                "evidence": list(draft.evidence),
                "file": str(self._drafts.path(draft.project, draft.id)),
                "text": self._drafts.text(draft.project, draft.id)[:65536],
            }
            for draft in self._drafts.all(project)
        ]

    async def approve(self, project: str, draft_id: str) -> str:
        """Register a draft as its file is now; return its task. Raises NotFound, NotPossible."""
        async with self._cycle:
            await self._states()
            return await self._editor.approve(project, draft_id, self._projects.folder(project))

    async def drop(self, project: str, draft_id: str) -> None:
        """Drop a draft for good. Raises NotFound."""
        async with self._cycle:
            await self._editor.drop(project, draft_id)
