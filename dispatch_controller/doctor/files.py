"""Checks of nodes.json, projects.json and the specs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dispatch_controller import executors
from dispatch_controller.core import registration
from dispatch_controller.core.plan import KnownTask, Plan
from dispatch_controller.core.spec import Spec
from dispatch_controller.doctor.finding import Finding, error, warning
from dispatch_controller.home import Home
from dispatch_controller.node_files import (
    NodeEntry,
    NodesFile,
    ProjectEntry,
    ProjectsFile,
    read_nodes,
    read_projects,
)
from dispatch_controller.settings import Settings
from dispatch_controller.spec_files import Found, find, locate


@dataclass(frozen=True, slots=True)
class Files:
    """What the home's files say; read once for all checks."""

    nodes: NodesFile
    projects: ProjectsFile
    found: tuple[Found, ...]
    """Of the common spec folder, then of each project with a folder of its own."""
    plan: Plan | None
    """What registering them would change; None where the tasks are not known."""

    @property
    def specs(self) -> list[Spec]:
        return [spec for found in self.found for spec in found.specs]


def read_files(home: Home, settings: Settings, known: Sequence[KnownTask] | None) -> Files:
    """Read everything, and plan its registration against the `known` tasks."""
    projects = read_projects(home.projects)
    optional = frozenset(n for n, p in projects.projects.items() if p.allow_empty_modifies)
    found = [find([settings.specs], modifies_optional=optional)]
    for name, folder in spec_folders(settings, projects.projects).items():
        found.append(find([folder], name, modifies_optional=optional))
    plan = None
    if known is not None:
        specs = {spec.path: spec for part in found for spec in part.specs}
        located = locate((row.spec_file for row in known), base=home.root)
        plan = registration.plan(specs.values(), known, located=located)
    return Files(read_nodes(home.nodes), projects, tuple(found), plan)


def spec_folders(settings: Settings, projects: Mapping[str, ProjectEntry]) -> dict[str, Path]:
    """Return the projects that keep their specs in a folder of their own."""
    return {
        name: settings.projects / Path(project.specs_dir).expanduser()
        for name, project in sorted(projects.items())
        if project.specs_dir is not None
    }


def check_nodes_file(home: Home, settings: Settings, files: Files) -> Iterator[Finding]:
    """nodes.json itself, and that the settings know each node's executor."""
    read = files.nodes
    if not read.complete and not read.errors:
        fix = (
            'write it, for example [{"name": "here", "slots": 2}], or run dispatch-controller init'
        )
        yield error("nodes.json", home.nodes, "does not exist, so nothing can run", fix)
    for wrong in read.errors:
        text = _place(wrong.entry, wrong.key, wrong.reason)
        yield error("nodes.json", wrong.file, text, _mend(read.complete))
    if read.complete and not any(node.slots for node in read.nodes):
        fix = "add a node, or give one slots"
        yield error("nodes.json", home.nodes, "no node has a slot, so nothing can run", fix)
    for node in read.nodes:
        if executors.command(settings.executors, node.executor, node.api_mode) is None:
            known = ", ".join(sorted(settings.executors))
            text = f"node {node.name} names the executor {node.executor}, which no setting knows"
            fix = f"use one of {known}, or add [executors.{node.executor}] to {home.settings}"
            yield error("nodes.json", home.nodes, text, fix)


def _mend(complete: bool) -> str:
    if complete:
        return "mend the entry; the others are used meanwhile"
    return "mend the file; a running controller goes by what it read last"


def _place(entry: str | None, key: str | None, reason: str) -> str:
    return ": ".join(part for part in (entry, key, reason) if part is not None)


def check_projects_file(home: Home, settings: Settings, files: Files) -> Iterator[Finding]:
    """projects.json itself, and that the folders it names are there."""
    read = files.projects
    for wrong in read.errors:
        text = _place(wrong.entry, wrong.key, wrong.reason)
        yield error("projects.json", wrong.file, text, _mend(read.complete))
    for name, project in sorted(read.projects.items()):
        if project.sync_mode == "git" and project.repo_url is None:
            text = f"{name}: sync_mode is git, and there is no repo_url to clone from"
            yield error("projects.json", home.projects, text, "add repo_url")
        if project.repo_local is not None:
            folder = settings.projects / Path(project.repo_local).expanduser()
            if not folder.is_dir():
                text = f"{name}: repo_local: {folder} is not a folder"
                yield error("projects.json", home.projects, text, "mend repo_local")
    for name, folder in spec_folders(settings, read.projects).items():
        if not folder.is_dir():
            text = f"{name}: specs_dir: {folder} is not a folder"
            yield error("projects.json", home.projects, text, "mend specs_dir")


def check_specs(files: Files) -> Iterator[Finding]:
    """Files that cannot be registered, and tasks that could never run."""
    mend = "mend the file (docs/writing-specs.md); the others are registered all the same"
    for found in files.found:
        for wrong in found.errors:
            yield error("specs", wrong.file, f"line {wrong.line}: {wrong.reason}", mend)
    if files.plan is not None:
        for wrong in files.plan.errors:
            yield error("specs", wrong.file, wrong.reason, mend)
        for blocked in files.plan.warnings:
            if blocked.reason.startswith("blocked: "):
                yield warning("specs", blocked.file, blocked.reason, "mend depends_on")
    if files.nodes.nodes:
        yield from _check_executors(files.specs, files.nodes.nodes)


def _check_executors(specs: Sequence[Spec], nodes: Sequence[NodeEntry]) -> Iterator[Finding]:
    offered = {node.executor for node in nodes} | {node.name for node in nodes}
    if "glm" in offered:
        offered.add("codex")  # falls back to it (scheduling.md, rule 3)
    wanted = Counter(spec.executor for spec in specs if spec.executor not in offered)
    for executor, count in sorted(wanted.items()):
        first = next(spec.path for spec in specs if spec.executor == executor)
        text = f"{count} specs want the executor {executor} ({first} first), and no node has it"
        fix = f'give a node "executor": "{executor}" in nodes.json, or change the specs'
        yield warning("specs", executor, text, fix)
