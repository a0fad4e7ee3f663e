"""What a dependency names, and which tasks wait for each other in a circle (specs.md)."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dispatch_controller.core import ids


@dataclass(frozen=True, slots=True)
class Resolved:
    task_id: str
    """The id it is registered under."""


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """A short id that several tasks of the project begin with."""

    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnknownId:
    """No task has this id, nor one that begins with it."""


Resolution = Resolved | Ambiguous | UnknownId


class Names:
    """All tasks by project and by the id their files write, for resolving dependencies."""

    def __init__(self, tasks: Iterable[tuple[str, str]]) -> None:
        """Take (registered id, project) of every task."""
        self._registered: set[str] = set()
        self._written: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for task_id, project in tasks:
            self._registered.add(task_id)
            self._written[project][ids.written(task_id, project)] = task_id
        self._sorted = {project: sorted(names) for project, names in self._written.items()}

    def resolve(self, dependency: str, project: str) -> Resolution:
        """Return what an id in a spec of `project` names.

        An exact id of the project; else an id as it is registered (`X@other`); else the one task
        of the project that begins with it and a `-`; else an exact id of another project. A
        short id that several tasks begin with is ambiguous and is not looked up elsewhere.
        """
        own = self._written.get(project, {})
        if dependency in own:
            return Resolved(own[dependency])
        if "@" in dependency and dependency in self._registered:
            return Resolved(dependency)
        candidates = self._beginning_with(f"{dependency}-", project)
        if len(candidates) == 1:
            return Resolved(own[candidates[0]])
        if candidates:
            return Ambiguous(tuple(candidates))
        return Resolved(dependency) if dependency in self._registered else UnknownId()

    def link(self, depends_on: Iterable[str], project: str) -> tuple[str, ...]:
        """Return the dependencies by registered id, each once; unresolved ones as written."""
        found = []
        for dependency in depends_on:
            resolution = self.resolve(dependency, project)
            found.append(resolution.task_id if isinstance(resolution, Resolved) else dependency)
        return tuple(dict.fromkeys(found))

    def _beginning_with(self, prefix: str, project: str) -> list[str]:
        names = self._sorted.get(project, [])
        end = start = bisect_left(names, prefix)
        while end < len(names) and names[end].startswith(prefix):
            end += 1
        return names[start:end]


def cycles(graph: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return, for each task that waits for itself, a path from a task back to it.

    `graph` maps a task to what it depends on; ids that are no key are passed over, so completed
    tasks are left out by the caller. A path names its first task again at its end. Tasks on one
    path share it; what merely depends on a cycle is not in it.
    """
    found: dict[str, tuple[str, ...]] = {}
    for component in _components(graph):
        members = set(component)
        for task in sorted(members):
            if task in found:
                continue
            path = _way_back(task, graph, members)
            if path is not None:
                for member in path:
                    found.setdefault(member, path)
    return found


def _way_back(
    task: str, graph: Mapping[str, Sequence[str]], members: set[str]
) -> tuple[str, ...] | None:
    """Return a shortest path from a task to itself inside its component, or None."""
    came_from: dict[str, str] = {}
    queue = deque([task])
    while queue:
        here = queue.popleft()
        for there in graph[here]:
            if there == task:
                path = [here]
                while path[-1] != task:
                    path.append(came_from[path[-1]])
                return (*reversed(path), task)
            if there in members and there not in came_from:
                came_from[there] = here
                queue.append(there)
    return None


def _components(graph: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the strongly connected components (Tarjan's algorithm, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    open_tasks: list[str] = []
    is_open: set[str] = set()
    found: list[list[str]] = []
    for root in graph:
        if root in index:
            continue
        index[root] = low[root] = len(index)
        open_tasks.append(root)
        is_open.add(root)
        work = [(root, iter(graph[root]))]
        while work:
            task, rest = work[-1]
            for other in rest:
                if other not in graph:
                    continue
                if other not in index:
                    index[other] = low[other] = len(index)
                    open_tasks.append(other)
                    is_open.add(other)
                    work.append((other, iter(graph[other])))
                    break
                if other in is_open:
                    low[task] = min(low[task], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[task])
                if low[task] == index[task]:
                    component = []
                    while True:
                        member = open_tasks.pop()
                        is_open.discard(member)
                        component.append(member)
                        if member == task:
                            break
                    found.append(component)
    return found
