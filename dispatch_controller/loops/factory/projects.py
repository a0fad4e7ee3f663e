"""What the factory knows of the projects: their policy, how they stand, and their evidence."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dispatch_controller.core import ids
from dispatch_controller.core.candidates import Measure
from dispatch_controller.core.dependencies import Names
from dispatch_controller.core.gaps import Completed, standing
from dispatch_controller.core.generation import Policy, ProjectState
from dispatch_controller.core.ledger import Ledger, ProjectRecord, generation_of
from dispatch_controller.core.spec import DEFAULT_EXECUTOR, SIZE_LIMIT, Spec, parse
from dispatch_controller.factory import notes
from dispatch_controller.factory.checkout import look
from dispatch_controller.factory.drafts import HELD, Drafts
from dispatch_controller.factory.generator import GeneratorFailed, Request
from dispatch_controller.home import Home
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.operator import NotPossible
from dispatch_controller.loops.orders import INSTRUCTIONS
from dispatch_controller.node_files import ProjectEntry, ProjectsFile, read_projects
from dispatch_controller.settings_sections import Factory
from dispatch_controller.store import factory
from dispatch_controller.store.factory import Evidence

_MOST_INSTRUCTIONS = 16 * 1024


def policy(settings: Factory, entry: ProjectEntry) -> Policy:
    """Return a project's own wishes laid over the settings."""
    own = entry.factory
    base = Policy(
        generator=settings.generator,
        dry_run=settings.dry_run,
        per_day=settings.per_day,
        iterate_tasks=settings.iterate_tasks,
        iterate_completed=settings.iterate_completed,
        iterate_pause=settings.iterate_pause,
        enabled=own.enabled,
        executor=own.executor,
        checks=tuple(command for command in (entry.verify, *own.checks) if command),
    )
    names = (
        "generator", "dry_run", "per_day", "iterate_tasks", "iterate_completed", "iterate_pause",
    )  # fmt: skip
    given = {name: getattr(own, name) for name in names if getattr(own, name) is not None}
    return replace(base, **given)


@dataclass(frozen=True, slots=True)
class Stray:
    """A generated file that the factory's events do not know."""

    file: str
    draft: bool
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that is needed to ask for specs, and to judge what comes."""

    request: Request
    measure: Measure
    executor: str
    strays: tuple[Stray, ...] = ()


class Projects:
    """Reads projects.json, the tasks and the checkouts. Writes nothing."""

    def __init__(self, context: Context, drafts: Drafts) -> None:
        self._context = context
        self._drafts = drafts
        self._file = ProjectsFile({})

    async def states(self, ledger: Ledger) -> list[ProjectState]:
        """Return how every project stands. Reads projects.json anew.

        Raises NotPossible where that cannot be read: nobody knows then whom to leave alone.
        """
        context = self._context
        read = await context.run_sync(read_projects, Home(context.settings.home).projects)
        if read.errors and not read.complete:
            raise NotPossible(str(read.errors[0]))
        self._file = read
        generated = {name: list(record.tasks) for name, record in ledger.projects.items()}
        found = await context.store.read(factory.standings, sorted(read.projects), generated)
        wrong = {error.entry for error in read.errors}
        return [self._state(name, stands, ledger, wrong) for name, stands in found.items()]

    def _state(
        self, name: str, stands: factory.Standing, ledger: Ledger, wrong: set[str | None]
    ) -> ProjectState:
        entry = self.entry(name)
        record = ledger.projects.get(name) or ProjectRecord()
        wishes = policy(self._context.settings.factory, entry)
        closed = None
        if name in wrong:
            closed = "its entry in projects.json has an error"
        elif entry.paused:
            closed = "the project is paused"
        elif wishes.generator == "gaps" and entry.repo_local is None:
            closed = "gaps reads the checkout, and projects.json names none (repo_local)"
        elif ids.problem(name) is not None:
            closed = "its name cannot be in a spec"
        return ProjectState(
            name=name,
            policy=wishes,
            counts=stands.counts,
            ended=stands.ended,
            generated=stands.generated,
            made=tuple(record.made),
            iterated=record.iterated,
            closed=closed,
        )

    @property
    def entries(self) -> Mapping[str, ProjectEntry]:
        """projects.json as `states` last read it."""
        return self._file.projects

    def entry(self, name: str) -> ProjectEntry:
        return self._file.projects.get(name) or ProjectEntry()

    def folder(self, name: str) -> Path:
        """Return the folder of a project's specs."""
        settings, entry = self._context.settings, self.entry(name)
        if entry.specs_dir is not None:
            return settings.projects / Path(entry.specs_dir).expanduser()
        return settings.specs / name

    async def prepare(self, state: ProjectState, wanted: int, record: ProjectRecord) -> Prepared:
        """Gather what a generator may know. Raises GeneratorFailed for a checkout that is gone."""
        context = self._context
        found = await context.store.read(factory.evidence, state.name)
        return await context.run_sync(self._prepare, state, wanted, record, found)

    def _prepare(
        self, state: ProjectState, wanted: int, record: ProjectRecord, found: Evidence
    ) -> Prepared:
        name, entry, now = state.name, self.entry(state.name), self._context.clock.wall()
        checkout = None
        if entry.repo_local is not None:
            root = self._context.settings.projects / Path(entry.repo_local).expanduser()
            try:
                checkout = look(root)
            except OSError as error:
                raise GeneratorFailed(f"checkout {root}: {error.strerror or error}") from error
        dead = {task.id for task in standing([one.task for one in found.ended], now)}
        ended = [
            one for one in found.ended if one.task.id in dead and one.task.id not in record.tasks
        ]
        specs = self._specs([task.spec_file for task in found.completed])
        wishes = self._specs([one.task.spec_file for one in ended])
        texts = notes.latest(self.folder(name))
        request = Request(
            project=name,
            generation=self._generation(name, record, found),
            wanted=wanted,
            seen=frozenset(record.seen),
            checkout=checkout,
            checks=state.policy.checks,
            ended=ended,
            completed=[
                Completed(task, specs[task.spec_file].body)
                for task in found.completed
                if task.spec_file in specs
            ],
            waiting=found.waiting,
            names=Names(found.ids),
            verify={
                one.task.id: _check_of(one.task.spec_file, wishes) or entry.verify for one in ended
            },
            notes=texts,
            instructions=_instructions(checkout.root) if checkout else "",
        )
        own = [task for task, project in found.ids if project == name]
        measure = Measure(
            project=name,
            seen=request.seen,
            tasks=frozenset({*own, *(ids.written(task, name) for task in own)}),
            exists=checkout.has if checkout else None,
            links=notes.links(texts),
        )
        used = Counter(spec.executor for spec in (*specs.values(), *wishes.values()))
        common = used.most_common(1)[0][0] if used else DEFAULT_EXECUTOR
        strays = (*self._stray_specs(name, record), *self._stray_drafts(name, record))
        return Prepared(request, measure, state.policy.executor or common, strays)

    def _stray_specs(self, name: str, record: ProjectRecord) -> Iterator[Stray]:
        folder = self.folder(name)
        for path in sorted(folder.glob("G*.md")) if folder.is_dir() else []:
            if path.stem in record.tasks or ids.qualified(path.stem, name) in record.tasks:
                continue
            file = os.path.realpath(path)
            spec = self._specs([file]).get(file)
            if spec is None or spec.generated_by is None or spec.evidence_key in record.seen:
                continue
            about = {
                "generator": spec.generated_by,
                "generation": spec.generation,
                "evidence_key": spec.evidence_key,
            }
            yield Stray(file, False, about)

    def _stray_drafts(self, name: str, record: ProjectRecord) -> Iterator[Stray]:
        for draft in self._drafts.all(name):
            if draft.state == HELD and draft.evidence_key and draft.evidence_key not in record.seen:
                about = {
                    "generator": draft.generator,
                    "generation": draft.generation,
                    "evidence_key": draft.evidence_key,
                    "digest": draft.digest,
                }
                yield Stray(str(self._drafts.path(name, draft.id)), True, about)

    def _generation(self, name: str, record: ProjectRecord, found: Evidence) -> int:
        """Return the next generation's number: above all that were ever seen in use."""
        names = [task for task, project in found.ids if project == name]
        names += [draft.id for draft in self._drafts.all(name)]
        folder = self.folder(name)
        names += [path.name for path in folder.glob("G*.md")] if folder.is_dir() else []
        return max([record.generation, *map(generation_of, names)]) + 1

    def _specs(self, spec_files: list[str]) -> dict[str, Spec]:
        """Return those of the spec files that can be read."""
        found = {}
        for spec_file in spec_files:
            try:
                content = self._context.catalog.text(spec_file)[:SIZE_LIMIT].encode()
            except (OSError, ValueError, RuntimeError):
                continue
            parsed = parse(spec_file, content, default_project="any", modifies_optional=_Any())
            if isinstance(parsed, Spec):
                found[spec_file] = parsed
        return found


class _Any:
    def __contains__(self, _: object) -> bool:
        return True


def _instructions(root: Path) -> str:
    for name in INSTRUCTIONS:
        try:
            with (root / name).open("rb") as file:
                return file.read(_MOST_INSTRUCTIONS).decode("utf-8", "replace")
        except OSError:
            continue
    return ""


def _check_of(spec_file: str, specs: Mapping[str, Spec]) -> str | None:
    return specs[spec_file].verify if spec_file in specs else None
