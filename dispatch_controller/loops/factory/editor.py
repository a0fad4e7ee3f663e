"""The one way from a generator's candidates to tasks: check, write, register, remember."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dispatch_controller.core import candidates, ledger
from dispatch_controller.core.candidates import Accepted, Candidate, Rejected, Repeated
from dispatch_controller.core.spec import Spec, SpecError, parse
from dispatch_controller.core.times import iso
from dispatch_controller.factory.drafts import HELD, REJECTED, Draft, Drafts
from dispatch_controller.factory.files import write_new
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.factory.memory import Memory
from dispatch_controller.loops.factory.projects import Prepared
from dispatch_controller.loops.operator import NotFound, NotPossible
from dispatch_controller.loops.registrar import Registrar
from dispatch_controller.store import factory


@dataclass(slots=True)
class Outcome:
    """What became of one answer of a generator."""

    registered: list[str] = field(default_factory=list)
    """Task ids."""
    held: list[str] = field(default_factory=list)
    """Ids of drafts that wait for approval."""
    rejected: list[str] = field(default_factory=list)
    """Ids of drafts that did not pass."""
    repeated: list[str] = field(default_factory=list)
    """Evidence keys that were used before."""

    @property
    def made(self) -> int:
        return len(self.registered) + len(self.held)


@dataclass(frozen=True, slots=True)
class _New:
    """A spec that passed, and what its event says of it."""

    id: str
    text: str
    about: dict[str, Any]


class Editor:
    """Writes generated specs and drafts."""

    def __init__(
        self, context: Context, registrar: Registrar, memory: Memory, drafts: Drafts
    ) -> None:
        self._context = context
        self._registrar = registrar
        self._memory = memory
        self.drafts = drafts

    async def take(
        self,
        found: Sequence[Candidate],
        prepared: Prepared,
        folder: Path,
        *,
        generator: str,
        dry_run: bool,
    ) -> Outcome:
        """Make specs of candidates. Raises OSError where one cannot be written."""
        outcome = Outcome()
        new: list[_New] = []
        used: set[str] = set()
        for number, candidate in enumerate(found, 1):
            verdict = await self._context.run_sync(candidates.check, candidate, prepared.measure)
            match verdict:
                case Rejected(reason):
                    draft_id = f"G{prepared.request.generation}-{number:02d}-rejected"
                    await self._reject(candidate.text, draft_id, reason, prepared, generator)
                    outcome.rejected.append(draft_id)
                case Accepted() if not used & {verdict.key, verdict.digest}:
                    used |= {verdict.key, verdict.digest}
                    new.append(_compose(verdict, number, prepared, generator))
                case Accepted() | Repeated():
                    await self._repeat(verdict.key, prepared, generator)
                    outcome.repeated.append(verdict.key)
        if dry_run:
            for spec in new:
                await self._hold(spec)
                outcome.held.append(spec.id)
        elif new:
            await self._register_all(new, prepared, folder, generator, outcome)
        return outcome

    async def _register_all(
        self,
        new: Sequence[_New],
        prepared: Prepared,
        folder: Path,
        generator: str,
        outcome: Outcome,
    ) -> None:
        files = {folder / f"{spec.id}.md": spec.text for spec in new}
        tasks = await self._register(files, prepared.request.project)
        for spec, (path, (task_id, reason)) in zip(new, tasks.items(), strict=True):
            if task_id is None:
                await self._reject(spec.text, spec.id, reason, prepared, generator)
                outcome.rejected.append(spec.id)
            else:
                await self._memory.tell(
                    ledger.GENERATED, task_id=task_id, spec_file=str(path), **spec.about
                )
                outcome.registered.append(task_id)

    async def _register(
        self, files: Mapping[Path, str], project: str
    ) -> dict[Path, tuple[str | None, str]]:
        """Write spec files and register them; return for each its task, or None and why not.

        Raises OSError (FileExistsError): then none is left behind.
        """
        context = self._context
        real = await context.run_sync(_write_all, files)
        report = await self._registrar.register(list(files), project)
        found = await context.store.read(factory.ids_of_files, list(real.values()))
        results: dict[Path, tuple[str | None, str]] = {}
        for path, place in real.items():
            if place in found:
                results[path] = found[place], ""
                continue
            await context.run_sync(path.unlink, True)
            reasons = [str(e["reason"]) for e in report["errors"] if e["file"] == place]
            results[path] = None, "; ".join(reasons) or "registration took it for no spec"
        return results

    async def adopt(self, prepared: Prepared) -> None:
        """Remember generated files that no event tells of: a crash came between, or a clean-up."""
        files = [stray.file for stray in prepared.strays if not stray.draft]
        tasks = await self._context.store.read(factory.ids_of_files, files)
        await self._memory.record(
            *(
                factory.Row(
                    ledger.DRAFTED if stray.draft else ledger.GENERATED,
                    {"project": prepared.request.project, "adopted": True, **stray.about},
                    tasks.get(stray.file),
                )
                for stray in prepared.strays
            )
        )

    async def _hold(self, spec: _New) -> None:
        about = spec.about
        draft = Draft(
            spec.id, about["project"], HELD, "waits for approval", about["generator"],
            about["generation"], iso(self._context.clock.wall()), about["evidence_key"],
            about["digest"], tuple(about["evidence"]),
        )  # fmt: skip
        await self._context.run_sync(self.drafts.save, draft, spec.text)
        await self._memory.tell(ledger.DRAFTED, draft=spec.id, **about)

    async def _repeat(self, key: str, prepared: Prepared, generator: str) -> None:
        project = prepared.request.project
        await self._memory.tell(
            ledger.REPEATED, project=project, generator=generator, evidence_key=key
        )

    async def _reject(
        self, text: str, draft_id: str, reason: str, prepared: Prepared, generator: str
    ) -> None:
        request = prepared.request
        draft = Draft(
            draft_id, request.project, REJECTED, reason, generator, request.generation,
            iso(self._context.clock.wall()),
        )  # fmt: skip
        await self._context.run_sync(self.drafts.save, draft, text)
        await self._memory.tell(
            ledger.REJECTED,
            project=request.project,
            generator=generator,
            draft=draft_id,
            reason=reason,
        )

    async def approve(self, project: str, draft_id: str, folder: Path) -> str:
        """Make a task of a draft, as its file is now; return the task's id.

        Raises NotFound or NotPossible.
        """
        draft, text = await self._read(project, draft_id)
        parsed = parse(f"{draft_id}.md", text.encode(), project=project, default_project=project)
        if isinstance(parsed, SpecError):
            raise NotPossible(f"draft {draft_id}, line {parsed.line}: {parsed.reason}")
        if not isinstance(parsed, Spec) or parsed.task_id != draft_id:
            raise NotPossible(
                f"draft {draft_id} is no spec yet: mend {self.drafts.path(project, draft_id)}, "
                f"and let its front matter say task_id: {draft_id}"
            )
        try:
            path = folder / f"{draft_id}.md"
            task_id, reason = (await self._register({path: text}, project))[path]
        except FileExistsError as error:
            raise NotPossible(f"{folder / draft_id}.md exists already") from error
        except OSError as error:
            raise NotPossible(f"{folder}: {error.strerror or error}") from error
        if task_id is None:
            raise NotPossible(f"draft {draft_id}: {reason}")
        await self._memory.tell(ledger.APPROVED, task_id=task_id, **_about(draft))
        await self._context.run_sync(self.drafts.remove, project, draft_id)
        return task_id

    async def drop(self, project: str, draft_id: str) -> None:
        """Drop a draft; its evidence is not asked for again. Raises NotFound."""
        draft, _ = await self._read(project, draft_id)
        await self._memory.tell(ledger.DROPPED, draft=draft_id, **_about(draft))
        await self._context.run_sync(self.drafts.remove, project, draft_id)

    async def _read(self, project: str, draft_id: str) -> tuple[Draft, str]:
        try:
            draft = await self._context.run_sync(self.drafts.get, project, draft_id)
            return draft, await self._context.run_sync(self.drafts.text, project, draft_id)
        except FileNotFoundError as error:
            raise NotFound(f"project {project} has no draft {draft_id}") from error


def _about(draft: Draft) -> dict[str, Any]:
    return {
        "project": draft.project,
        "generation": draft.generation,
        "generator": draft.generator,
        "evidence_key": draft.evidence_key,
        "digest": draft.digest,
        "evidence": list(draft.evidence),
    }


def _compose(accepted: Accepted, number: int, prepared: Prepared, generator: str) -> _New:
    request = prepared.request
    slug = candidates.slug(accepted.spec.title or "")
    spec_id = f"G{request.generation}-{number:02d}-{slug}"
    text = candidates.compose(
        accepted,
        spec_id,
        generated_by=generator,
        generation=request.generation,
        executor=prepared.executor,
    )
    about = {
        "project": request.project,
        "generation": request.generation,
        "generator": generator,
        "evidence_key": accepted.key,
        "digest": accepted.digest,
        "evidence": list(accepted.evidence),
    }
    return _New(spec_id, text, about)


def _write_all(files: Mapping[Path, str]) -> dict[Path, str]:
    """Write new files; return the real path of each. One that fails takes the others back."""
    written: dict[Path, str] = {}
    try:
        for path, text in files.items():
            write_new(path, text)
            written[path] = os.path.realpath(path)
    except OSError:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return written
