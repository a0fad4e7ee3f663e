"""What a set of spec files changes in the tasks (specs.md): a plan, decided without touching any.

The rules, where the contract leaves a choice:

- A task's row is the one of its project whose id, as files write it, is the spec's. So a file
  that moved keeps its task: when the row's old file is gone, a pending or failed row gets the new
  path (an update, with the event `spec_moved`). While the old file is still there, the new one
  is a second file with the same id: an error that names both.
- Of several new files with one id the one nearest to the top wins (an archive in a subfolder
  never does), then the first by name. A file that a row already names always wins.
- A pending or failed row without a hash is changed when a column that comes from the spec
  differs. When none does, it gets the hash and counts as unchanged. Of other rows without a hash
  nobody can tell whether their file changed; they are left alone.
- A deadletter task keeps its row, like one that runs or is completed, and gets the event
  `spec_changed`; once the operator makes it pending, the next plan updates it.
- An id that differs only by case from another of its project is registered as `<id>@<project>`,
  since both would share a folder on file systems that ignore case.
- A dependency that a row holds is resolved anew at every plan, in the order of `Names.resolve`,
  as long as the task is pending or failed. What was resolved before resolves to itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from dispatch_controller.core import ids
from dispatch_controller.core.dependencies import Ambiguous, Names, UnknownId, cycles
from dispatch_controller.core.plan import KnownTask, Plan, SpecColumns, SpecEvent, SpecWarning
from dispatch_controller.core.spec import Spec, SpecError
from dispatch_controller.model import TaskStatus

_UPDATABLE = (TaskStatus.PENDING, TaskStatus.FAILED)


def plan(
    specs: Iterable[Spec],
    rows: Iterable[KnownTask],
    *,
    located: Mapping[str, str],
    reported: Collection[tuple[str, ...]] = frozenset(),
) -> Plan:
    """Return what the specs change in the rows; the same input again changes nothing.

    `rows` are all tasks of the database. `located` gives, for the `spec_file` of a row, the path
    of the file if there is one (spec_files.locate); a row whose file is not in it has lost its
    file. `reported` are the keys of findings that already have their event.
    """
    planner = _Planner(sorted(specs, key=_by_depth), list(rows), located)
    planner.match()
    planner.look_for_lost_files()
    return planner.result(reported)


class _Planner:
    """Goes through the specs once, matching each to its row."""

    def __init__(
        self, specs: list[Spec], rows: list[KnownTask], located: Mapping[str, str]
    ) -> None:
        self.specs = specs
        self.rows = rows
        self.located = located
        self.paths = {spec.path for spec in specs}
        self.by_id = {row.id: row for row in rows}
        self.by_name = {(row.project, ids.written(row.id, row.project)): row for row in rows}
        self.folders = {(project, name.casefold()) for project, name in self.by_name}
        self.owners: dict[str, Spec] = {}
        """Task id -> the spec that is its file."""
        self.new: list[str] = []
        self.events: list[SpecEvent] = []
        self.errors: list[SpecError] = []
        self.warnings: list[SpecWarning] = []

    def match(self) -> None:
        """Give each spec its row, a new id, or an error."""
        claims: defaultdict[tuple[str, str], list[Spec]] = defaultdict(list)
        for spec in self.specs:
            claims[spec.project, spec.task_id].append(spec)
        for name, candidates in claims.items():
            row = self.by_name.get(name)
            holder = candidates[0].path
            if row is not None:
                holder = self.place(row) or holder
            for spec in candidates:
                if spec.path != holder:
                    self.errors.append(_second_file(spec, holder))
                elif row is not None:
                    self.owners[row.id] = spec
                else:
                    self.register(spec)

    def place(self, row: KnownTask) -> str | None:
        """Return where the row's file is, or None if it is gone."""
        return row.spec_file if row.spec_file in self.paths else self.located.get(row.spec_file)

    def register(self, spec: Spec) -> None:
        """Choose the id of a new task: its own, or `<id>@<project>` where that one is taken."""
        folder = (spec.project, spec.task_id.casefold())
        if spec.task_id in self.by_id or spec.task_id in self.owners:
            other = self.by_id.get(spec.task_id) or self.owners[spec.task_id]
            why = f"project {other.project} has a task of this id"
        elif folder in self.folders:
            why = "another task of the project has this id in other letter case"
        else:
            why = ""
        task_id = ids.qualified(spec.task_id, spec.project) if why else spec.task_id
        if task_id in self.by_id or task_id in self.owners:
            reason = (
                f"task_id: {spec.task_id} is taken ({why}), and so is {task_id}; choose another"
            )
            self.errors.append(SpecError(spec.path, 1, reason))
            return
        self.folders.add(folder)
        self.owners[task_id] = spec
        self.new.append(task_id)
        if why:
            details = {"spec_file": spec.path, "written": spec.task_id, "reason": why}
            self.events.append(SpecEvent(task_id, "id_collision", details))
            self.warnings.append(SpecWarning(spec.path, f"registered as {task_id}: {why}"))

    def look_for_lost_files(self) -> None:
        """Find rows whose file is gone, or now describes another task."""
        for row in self.rows:
            if row.id in self.owners:
                continue
            place = self.place(row)
            if place is None:
                reason = "the file is gone"
            elif place in self.paths:
                reason = "the file now describes another task"
            else:
                continue
            details = {"spec_file": row.spec_file, "reason": reason}
            self.events.append(SpecEvent(row.id, "spec_gone", details))

    def result(self, reported: Collection[tuple[str, ...]]) -> Plan:
        """Return the plan, once every spec has its task."""
        projects = [(row.id, row.project) for row in self.rows]
        names = Names(
            [*projects, *((task_id, self.owners[task_id].project) for task_id in self.new)]
        )
        inserts = tuple(_columns(task_id, self.owners[task_id], names) for task_id in self.new)
        updates, unchanged, hashes = self.compare(names)
        self.events.sort(key=lambda event: event.task_id)
        written = {columns.id: columns.depends_on for columns in (*inserts, *updates)}
        links = tuple(self.relink(names, written))
        depends_on = self.open_dependencies({**dict(links), **written})
        circles = cycles(depends_on)
        self.warn(names, depends_on, circles)
        return Plan(
            inserts=inserts,
            updates=tuple(updates),
            unchanged=tuple(unchanged),
            links=links,
            hashes=tuple(hashes),
            events=tuple(event for event in self.events if event.key not in reported),
            standing=frozenset(event.key for event in self.events),
            errors=tuple(self.errors),
            warnings=tuple(sorted(self.warnings, key=lambda warning: warning.file)),
            cycles=circles,
        )

    def compare(self, names: Names) -> tuple[list[SpecColumns], list[str], list[tuple[str, str]]]:
        """Return (updates, ids left unchanged, hashes to fill in) of the rows with a spec."""
        updates: list[SpecColumns] = []
        unchanged: list[str] = []
        hashes: list[tuple[str, str]] = []
        for task_id, spec in self.owners.items():
            row = self.by_id.get(task_id)
            if row is None:
                continue
            columns = _columns(task_id, spec, names)
            moved = row.spec_file != spec.path
            if row.status in _UPDATABLE and (moved or _differs(row, columns)):
                updates.append(columns)
                if moved:
                    details = {"spec_file": spec.path, "from": row.spec_file}
                    self.events.append(SpecEvent(task_id, "spec_moved", details))
                continue
            unchanged.append(task_id)
            if row.status in _UPDATABLE:
                if row.spec_hash is None:
                    hashes.append((task_id, spec.spec_hash))
            elif row.spec_hash not in (None, spec.spec_hash):
                details = {"spec_file": spec.path, "spec_hash": spec.spec_hash}
                self.events.append(SpecEvent(task_id, "spec_changed", details))
                reason = f"the file changed, but task {task_id} is {row.status} and keeps its row"
                self.warnings.append(SpecWarning(spec.path, reason))
        return updates, unchanged, hashes

    def relink(
        self, names: Names, written: Mapping[str, Sequence[str]]
    ) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the rows that nothing else updates and whose dependencies resolve anew."""
        for row in self.rows:
            if row.id in written or row.status not in _UPDATABLE or not row.depends_on:
                continue
            linked = names.link(row.depends_on, row.project)
            if linked != row.depends_on:
                yield row.id, linked

    def open_dependencies(
        self, planned: Mapping[str, tuple[str, ...]]
    ) -> dict[str, tuple[str, ...]]:
        """Return what each task that is not completed will depend on."""
        found = {
            row.id: planned.get(row.id, row.depends_on or ())
            for row in self.rows
            if row.status is not TaskStatus.COMPLETED
        }
        return found | {task_id: planned[task_id] for task_id in self.new}

    def warn(
        self,
        names: Names,
        depends_on: Mapping[str, Sequence[str]],
        circles: Mapping[str, Sequence[str]],
    ) -> None:
        """Report the files whose tasks cannot run as things stand, and the parsers' warnings."""
        for task_id, spec in self.owners.items():
            reasons = list(spec.warnings)
            for dependency in depends_on.get(task_id, ()):
                match names.resolve(dependency, spec.project):
                    case Ambiguous(candidates):
                        reason = f"could be any of {ids.listed(candidates)}; write the whole id"
                        reasons.append(f"blocked: depends_on {ids.shown(dependency)} {reason}")
                    case UnknownId():
                        reason = "names no known task; tried again at every sync"
                        reasons.append(f"blocked: depends_on {ids.shown(dependency)} {reason}")
            if task_id in circles:
                path = ids.listed(circles[task_id], " -> ")
                reasons.append(f"blocked: {task_id} is in a dependency cycle: {path}")
            self.warnings += [SpecWarning(spec.path, reason) for reason in reasons]


def _by_depth(spec: Spec) -> tuple[int, str]:
    return spec.path.count("/"), spec.path


def _columns(task_id: str, spec: Spec, names: Names) -> SpecColumns:
    return SpecColumns(
        id=task_id,
        project=spec.project,
        spec_file=spec.path,
        spec_hash=spec.spec_hash,
        depends_on=names.link(spec.depends_on, spec.project),
        modifies=spec.modifies,
        exclusive=spec.exclusive,
        priority=spec.priority,
        max_retries=spec.max_retries,
        estimated_minutes=spec.estimated_minutes,
    )


def _differs(row: KnownTask, columns: SpecColumns) -> bool:
    """Whether the file changed: by its hash, where the row has one, else by the columns."""
    if row.spec_hash is not None:
        return row.spec_hash != columns.spec_hash
    return (
        row.modifies != columns.modifies
        or row.exclusive != columns.exclusive
        or row.priority != columns.priority
        or row.max_retries != columns.max_retries
        or row.estimated_minutes != columns.estimated_minutes
        or row.depends_on != columns.depends_on
    )


def _second_file(spec: Spec, holder: str) -> SpecError:
    reason = (
        f"task_id: {spec.task_id} of project {spec.project} is already the task of {holder}, "
        f"so {spec.path} is not registered; give one of the two another task_id"
    )
    return SpecError(spec.path, 1, reason)
