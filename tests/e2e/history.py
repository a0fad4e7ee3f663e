"""What tasks wrote down themselves, and whether that could happen under the rules.

The tasks' own file is the only witness: the controller's database is not asked. The rules are
written here a second time, as simply as possible, so that a mistake in the program's own is seen.
"""

from __future__ import annotations

import random
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from tests.e2e.homes import spec


@dataclass(frozen=True, slots=True)
class Job:
    """A task of the plan."""

    id: str
    project: str
    depends_on: tuple[str, ...]
    modifies: tuple[str, ...]
    exclusive: bool
    pause: float

    def markdown(self, log: Path) -> str:
        """Return its spec: it notes its start and its end with one O_APPEND write each."""
        note = f'echo "$1 $TASK_ID $ATTEMPT $LEASE $(date +%s.%N)" >> {log}'
        script = (
            f"note() {{ {note}; }}\nnote start\nsleep {self.pause}\n"
            'echo done > "$OUTPUT_DIR/result"\nnote end'
        )
        return spec(
            self.id,
            script,
            project=self.project,
            depends_on=self.depends_on,
            modifies=self.modifies,
            exclusive=self.exclusive,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """One execution: seconds since the epoch by this machine's clock; `end` None: no end noted."""

    lease: str
    attempt: int
    start: float
    end: float | None


def plan(number: int, seed: int, projects: Sequence[str] = ("alpha", "beta")) -> list[Job]:
    """Return tasks whose dependencies form a DAG and whose files overlap in every way there is."""
    rng = random.Random(seed)
    jobs: list[Job] = []
    for index in range(number):
        project = projects[index % len(projects)]
        task_id = f"S{index:04}-{project}"
        earlier = [job for job in jobs[-60:] if job.project == project]
        wanted = min(len(earlier), rng.choice((0, 0, 1, 1, 2, 3)))
        depends_on = tuple(
            # Real files often name a task by the short form of its id.
            job.id if rng.random() < 0.5 else job.id.partition("-")[0]
            for job in rng.sample(earlier, wanted)
        )
        jobs.append(
            Job(
                task_id,
                project,
                depends_on,
                tuple(_paths(rng, task_id)),
                exclusive=rng.random() < 0.05,
                pause=round(rng.uniform(0.01, 0.15), 3),
            )
        )
    return jobs


def _paths(rng: random.Random, task_id: str) -> Iterator[str]:
    yield f"own/{task_id}.py"
    kind = rng.random()
    area = rng.randrange(40)
    if kind < 0.30:
        yield f"src/area{area}/shared.py"
    elif kind < 0.36:
        yield f"SRC/Area{area}/Shared.py"
    elif kind < 0.40:
        yield f"src/area{area}/"
    elif kind < 0.44:
        yield f"src/area{area}/*.py"


def read(log: Path) -> dict[str, list[Run]]:
    """Return the executions of each task that has noted one."""
    starts: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    ends: dict[tuple[str, str], list[float]] = defaultdict(list)
    for line in log.read_text().splitlines() if log.exists() else ():
        kind, task_id, number, lease, at = line.split(" ")
        if kind == "start":
            starts[task_id, lease].append((int(number), float(at)))
        else:
            ends[task_id, lease].append(float(at))
    runs: dict[str, list[Run]] = defaultdict(list)
    for (task_id, lease), begun in starts.items():
        ended = ends[task_id, lease]
        for place, (attempt, start) in enumerate(begun):
            end = ended[place] if place < len(ended) else None
            runs[task_id].append(Run(lease, attempt, start, end))
    return dict(runs)


def started(log: Path) -> int:
    """Return how many starts were noted so far."""
    return log.read_bytes().count(b"start ") if log.exists() else 0


def violations(jobs: Sequence[Job], runs: dict[str, list[Run]]) -> list[str]:
    """Return every broken rule, in words. Every job must have run once, to its end."""
    found = []
    for job in jobs:
        mine = runs.get(job.id, [])
        if len(mine) != 1:
            found.append(f"{job.id} ran {len(mine)} times: {mine}")
        elif mine[0].end is None:
            found.append(f"{job.id} never ended: {mine}")
    once = {job.id: runs[job.id][0] for job in jobs if len(runs.get(job.id, [])) == 1}
    found += _dependencies_broken(jobs, once)
    found += _overlaps(jobs, once)
    return found


def _dependencies_broken(jobs: Sequence[Job], runs: dict[str, Run]) -> Iterator[str]:
    for job in jobs:
        for wanted in job.depends_on:
            parent = next(
                other.id
                for other in jobs
                if other.project == job.project
                and (other.id == wanted or other.id.startswith(f"{wanted}-"))
            )
            if job.id in runs and parent in runs:
                end = runs[parent].end
                if end is None or runs[job.id].start < end:
                    yield f"{job.id} started before {parent} had ended"


def _overlaps(jobs: Sequence[Job], runs: dict[str, Run]) -> Iterator[str]:
    by_project: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        if job.id in runs:
            by_project[job.project].append(job)
    for members in by_project.values():
        members.sort(key=lambda job: runs[job.id].start)
        for one, other in combinations(members, 2):
            end = runs[one.id].end
            if end is None or runs[other.id].start >= end:
                continue
            path = _shared(one.modifies, other.modifies)
            if path is not None:
                yield f"{one.id} and {other.id} ran at once, and both change {path}"


def _shared(some: Sequence[str], others: Sequence[str]) -> str | None:
    for one in map(_place, some):
        for other in map(_place, others):
            if one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/"):
                return min(one, other, key=len)
    return None


def _place(path: str) -> str:
    """Return where a path of `modifies` lies: a glob lies in its literal parent folder."""
    parts = unicodedata.normalize("NFC", path).casefold().rstrip("/").split("/")
    for number, part in enumerate(parts):
        if any(sign in part for sign in "*?["):
            return "/".join(parts[:number])
    return "/".join(parts)
