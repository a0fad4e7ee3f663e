"""Turns a claim into the order that a node gets: the spec, what surrounds it, and how to run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dispatch_controller.core import ids
from dispatch_controller.executors import command
from dispatch_controller.loops.context import Context
from dispatch_controller.model import (
    Claim,
    GitSource,
    Node,
    SpecExtras,
    StartOrder,
)
from dispatch_controller.node_files import ProjectEntry
from dispatch_controller.store import tasks

MOST_SIBLINGS = 40
MOST_TEXT = 64 * 1024
INSTRUCTIONS = ("AGENTS.md", "CLAUDE.md")
SHARED_CONTEXT = "SHARED_CONTEXT.md"


@dataclass(frozen=True, slots=True)
class NoOrder:
    """A claim that cannot be turned into an order, and why."""

    why: str


async def build(context: Context, claims: Sequence[Claim]) -> list[StartOrder | NoOrder]:
    """Return for each claim its order. Files and database are read once for all of them."""
    siblings = {
        project: await context.store.read(tasks.siblings, project, MOST_SIBLINGS)
        for project in sorted({claim.task.project for claim in claims})
    }
    return await context.run_sync(_build_all, context, claims, siblings)


def _build_all(
    context: Context, claims: Sequence[Claim], siblings: Mapping[str, Sequence[tuple[str, str]]]
) -> list[StartOrder | NoOrder]:
    files = _Files()
    return [_build(context, claim, siblings[claim.task.project], files) for claim in claims]


def _build(
    context: Context, claim: Claim, siblings: Sequence[tuple[str, str]], files: _Files
) -> StartOrder | NoOrder:
    task, knowledge = claim.task, context.knowledge
    node = knowledge.nodes.get(claim.node)
    extras = context.catalog.extras.get(task.spec_file)
    if node is None or extras is None:
        return NoOrder(f"spec file {task.spec_file} or node {claim.node} is gone")
    executor = command(context.settings.executors, claim.executor, node.api_mode)
    if executor is None:
        return NoOrder(
            f"no executor {claim.executor} in the settings: add [executors.{claim.executor}]"
        )
    try:
        spec = context.catalog.text(task.spec_file)
    except OSError as error:
        return NoOrder(f"spec file {task.spec_file}: {error.strerror}")
    project = knowledge.project(task.project)
    verify = extras.verify or project.verify
    return StartOrder(
        project=task.project,
        task_id=task.id,
        folder=ids.folder_name(task.id),
        lease=claim.lease_owner,
        attempt=claim.attempt,
        sequence=claim.sequence,
        spec=spec,
        context=_surroundings(context, claim, node, project, extras, verify, siblings, files),
        timeout=extras.timeout_minutes * 60,
        executor=executor,
        gates=tuple(project.gates),
        verify=verify,
        modifies=task.modifies,
        write_set="fail" if project.write_set == "fail" else "warn",
        git=_git(project, claim),
    )


def _git(project: ProjectEntry, claim: Claim) -> GitSource | None:
    if project.sync_mode != "git" or project.repo_url is None:
        return None
    push = ids.branch_name(claim.task.project, claim.task.id, claim.node, claim.attempt)
    return GitSource(project.repo_url, project.main_branch, push)


def _surroundings(
    context: Context,
    claim: Claim,
    node: Node,
    project: ProjectEntry,
    extras: SpecExtras,
    verify: str | None,
    siblings: Sequence[tuple[str, str]],
    files: _Files,
) -> str:
    """Return the text that precedes the spec in spec.md (nodes.md, On the node)."""
    task = claim.task
    parts = []
    if project.repo_local is not None:
        checkout = context.settings.projects / Path(project.repo_local).expanduser()
        found = [files.text(checkout / name) for name in INSTRUCTIONS]
        parts.append(("Project instructions", next(filter(None, found), "")))
    shared = files.text(context.catalog.folder(task.spec_file) / SHARED_CONTEXT)
    parts.append(("Shared context", shared))
    others = [f"- {other}: {status}" for other, status in siblings if other != task.id]
    parts.append(("Other tasks of this project", "\n".join(others)))
    parts.append(("Environment", _environment(claim, node, extras, verify)))
    error = context.knowledge.last_error.get(task.id)
    if error is not None:
        parts.append(("What the last attempt failed of", error))
    return "\n\n".join(f"# {title}\n\n{text}" for title, text in parts if text)


def _environment(claim: Claim, node: Node, extras: SpecExtras, verify: str | None) -> str:
    task = claim.task
    lines = [
        f"- task {task.id} of project {task.project}, attempt {claim.attempt}, on node {node.name}",
        f"- time limit: {extras.timeout_minutes} minutes",
        f"- files this task may change: {', '.join(task.modifies) or 'none named'}",
        "- put other results into the folder $OUTPUT_DIR",
    ]
    if verify:
        lines.append(f"- it is checked by: {verify}")
    return "\n".join(lines)


class _Files:
    """Reads each file once per batch of orders; a file that is not there is no text."""

    def __init__(self) -> None:
        self._texts: dict[Path, str] = {}

    def text(self, path: Path) -> str:
        if path not in self._texts:
            try:
                with path.open("rb") as file:
                    self._texts[path] = file.read(MOST_TEXT).decode("utf-8", errors="replace")
            except OSError:
                self._texts[path] = ""
        return self._texts[path].strip()
