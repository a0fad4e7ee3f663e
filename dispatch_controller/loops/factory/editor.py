"""The one way from a generator's candidates to tasks: check, write, register, remember."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dispatch_controller.core import candidates, ledger
from dispatch_controller.core.candidates import Accepted, Candidate, Rejected, Repeated, Verdict
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
        used: set[str] = set()
        for number, candidate in enumerate(found, 1):
            verdict = await self._context.run_sync(candidates.check, candidate, prepared.measure)
            if isinstance(verdict, Accepted) and used & {verdict.key, verdict.digest}:
                verdict = Repeated(verdict.key)
            await self._settle(
                candidate, verdict, number, prepared, folder, generator, dry_run, outcome
            )
            if isinstance(verdict, Accepted):
                used |= {verdict.key, verdict.digest}
        return outcome

    async def _settle(
        self,
        candidate: Candidate,
        verdict: Verdict,
        number: int,
        prepared: Prepared,
        folder: Path,
        generator: str,
        dry_run: bool,
        outcome: Outcome,
    ) -> None:
        request = prepared.request
        project, generation = request.project, request.generation
        match verdict:
            case Repeated(key):
                await self._memory.tell(
                    ledger.REPEATED, project=project, generator=generator, evidence_key=key
                )
                outcome.repeated.append(key)
            case Rejected(reason):
                draft_id = f"G{generation}-{number:02d}-rejected"
                await self._reject(candidate.text, draft_id, reason, prepared, generator)
                outcome.rejected.append(draft_id)
            case Accepted():
                slug = candidates.slug(verdict.spec.title or "")
                spec_id = f"G{generation}-{number:02d}-{slug}"
                text = candidates.compose(
                    verdict,
                    spec_id,
                    generated_by=generator,
                    generation=generation,
                    executor=prepared.executor,
                )
                about = {
                    "project": project,
                    "generation": generation,
                    "generator": generator,
                    "evidence_key": verdict.key,
                    "digest": verdict.digest,
                    "evidence": list(verdict.evidence),
                }
                if dry_run:
                    await self._hold(spec_id, text, about)
                    outcome.held.append(spec_id)
                    return
                task_id, reason = await self._register(folder / f"{spec_id}.md", text, project)
                if task_id is None:
                    await self._reject(text, spec_id, reason, prepared, generator)
                    outcome.rejected.append(spec_id)
                else:
                    await self._memory.tell(
                        ledger.GENERATED,
                        task_id=task_id,
                        spec_file=str(folder / f"{spec_id}.md"),
                        **about,
                    )
                    outcome.registered.append(task_id)

    async def _register(self, path: Path, text: str, project: str) -> tuple[str | None, str]:
        """Write a spec file and register it; return its task, or None and why there is none."""
        context = self._context
        await context.run_sync(write_new, path, text)
        real = await context.run_sync(os.path.realpath, path)
        report = await self._registrar.register([path], project)
        found = await context.store.read(factory.ids_of_files, [real])
        if real in found:
            return found[real], ""
        with suppress(OSError):
            await context.run_sync(path.unlink)
        reasons = [str(error["reason"]) for error in report["errors"]]
        return None, "; ".join(reasons) or "registration took it for no spec"

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

    async def _hold(self, spec_id: str, text: str, about: dict[str, Any]) -> None:
        draft = Draft(
            spec_id, about["project"], HELD, "waits for approval", about["generator"],
            about["generation"], iso(self._context.clock.wall()), about["evidence_key"],
            about["digest"], tuple(about["evidence"]),
        )  # fmt: skip
        await self._context.run_sync(self.drafts.save, draft, text)
        await self._memory.tell(ledger.DRAFTED, draft=spec_id, **about)

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
            task_id, reason = await self._register(folder / f"{draft_id}.md", text, project)
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
