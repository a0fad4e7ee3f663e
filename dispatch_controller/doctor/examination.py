"""All checks of a home in their order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import trio

from dispatch_controller.doctor import controller, database, files, holders, home, migration, nodes
from dispatch_controller.doctor.controller import Ask
from dispatch_controller.doctor.finding import Finding, Severity, error
from dispatch_controller.home import Home, HomeError, HomeInUse, HomeLock, lock_home
from dispatch_controller.runtime.clock import Clock
from dispatch_controller.runtime.threads import in_thread
from dispatch_controller.settings import Settings, SettingsError, load_settings
from dispatch_controller.store.inspection import Inspection


@dataclass(frozen=True, slots=True)
class Report:
    findings: tuple[Finding, ...]
    running: bool
    """Whether a controller runs on the home, and was asked."""

    @property
    def well(self) -> bool:
        """Whether there is nothing to mend."""
        return all(finding.severity is Severity.NOTE for finding in self.findings)


def examine(root: Path, *, clock: Clock, ask: Ask, migrate: bool = False) -> Report:
    """Look at the home `root` and everything it names. Changes nothing.

    `ask` reaches the controller that runs on it. With `migrate` also what the first start of this
    controller will do with what the former programs left.
    """
    place = Home(root)
    not_ours = home.foreign(place)
    if not_ours is not None:
        return Report((not_ours,), running=False)
    try:
        settings = load_settings(root)
    except SettingsError as failed:
        unusable = [
            error("settings", place.settings, problem, "mend it; nothing starts before")
            for problem in failed.problems
        ]
        return Report((*home.check_home(place), *unusable), running=False)
    found = list(home.check_home(place))
    if not place.root.is_dir():
        return Report(tuple(found), running=False)
    lock: HomeLock | None = None
    seen: Inspection | None = None
    running, pid = False, None
    try:
        lock = lock_home(place)
    except HomeInUse as used:
        running, pid = True, used.pid
        found += controller.check_running(pid, ask)
    except HomeError as failed:
        text = str(failed).removeprefix(f"{place.lock}: ")
        found.append(error("home", place.lock, text, "give the home to this user"))
    try:
        if lock is not None:
            found += controller.check_leftovers(place)
            found += controller.check_port(settings)
            seen, troubles = database.look(place, clock.wall())
            found += troubles
        found += holders.check_holders(place, {os.getpid(), pid or 0})
        found += holders.check_former_services()
        found += home.check_permissions(place, settings)
        found += _check_files(place, settings, clock, seen, running=running, migrate=migrate)
    finally:
        if lock is not None:
            lock.close()
    return Report(tuple(found), running)


def _check_files(
    place: Home,
    settings: Settings,
    clock: Clock,
    seen: Inspection | None,
    *,
    running: bool,
    migrate: bool,
) -> Iterable[Finding]:
    # With a controller on the home the tasks are its own to look at.
    known = None if running else database.known_tasks(place, seen)
    read = files.read_files(place, settings, known)
    yield from files.check_nodes_file(place, settings, read)
    yield from files.check_projects_file(place, settings, read)
    yield from files.check_specs(read)
    uses_git = any(project.sync_mode == "git" for project in read.projects.projects.values())
    bench = nodes.Bench(settings, clock, in_thread, uses_git)
    unwell: list[Finding] = trio.run(nodes.check_nodes, read.nodes.nodes, bench)
    yield from unwell
    if migrate:
        lost = {finding.subject for finding in unwell if finding.severity is Severity.ERROR}
        yield from migration.first_start(place, settings, read, seen, lost, clock.wall())
        yield from migration.remote_workers(place, settings, read.nodes.nodes)


def repair(findings: Iterable[Finding], tell: Callable[[Finding, str | None], None]) -> None:
    """Mend what is safe to mend; `tell` gets each with None, or why it could not be done."""
    for finding in findings:
        if finding.repair is None:
            continue
        try:
            finding.repair()
        except OSError as failed:
            tell(finding, failed.strerror or str(failed))
        else:
            tell(finding, None)
