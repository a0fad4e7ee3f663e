"""What the first page says: what runs, what waits and why, what failed, and whether all is well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import trio

from dispatch_controller.core.incidents import Finding, Incident
from dispatch_controller.core.placement import Reason
from dispatch_controller.loops.conditions import reasons
from dispatch_controller.loops.context import Context
from dispatch_controller.store import findings, pages, tasks
from dispatch_controller.store.pages import TaskLine
from dispatch_controller.store.writer import Connection
from dispatch_controller.web import charts
from dispatch_controller.web.node_rows import node_rows
from dispatch_controller.web.parts import Parts
from dispatch_controller.web.remembered import Remembered
from dispatch_controller.web.trends import Trend, Trends

SHOWN = 8
"""Rows of each table here; the table of tasks has all."""
ASKED = 200
"""Pending tasks, the next ones first, whose reasons are looked at."""

KINDS = {
    "next_pass": "Starts with the next pass",
    "dependencies": "Waits for other tasks",
    "no_slot": "No free slot",
    "file_held": "A file is held by another task",
    "backoff": "Held back after a failure",
    "leased": "Leased by another scheduler",
    "executor_parked": "Executor is rate limited",
    "no_executor": "No node runs its executor",
    "paused": "Project is paused",
    "spec_gone": "Spec file is gone",
    "unknown_dependency": "Depends on what is no task",
    "cycle": "In a cycle",
}
"""Reasons (scheduling.md) as headings."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Pending tasks that wait for the same kind of reason."""

    kind: str
    title: str
    tasks: int
    example: str
    """Id of the first of them."""
    text: str
    """Its reason."""


@dataclass(frozen=True, slots=True)
class Waits:
    groups: tuple[Waiting, ...]
    asked: int


class Overview:
    """Gathers the page; what costs more than a few milliseconds is remembered for a moment."""

    def __init__(self, context: Context) -> None:
        self._context = context
        store = context.store
        self._trends = Trends(store)
        self._counts = Remembered(store, lambda: store.read(tasks.counts))
        self._lists = Remembered(store, lambda: store.read(_read_lists))
        self._waits = Remembered(store, self._look_at_waits, costly=True)
        self._trend = Remembered(store, self._look_at_trend, costly=True)

    async def counts(self) -> dict[str, int]:
        """Return how many tasks are in each state."""
        return await self._counts.get()

    async def values(self, here: Parts) -> dict[str, Any]:
        """Return what the template shows."""
        found: dict[str, Any] = {}

        async def gather(name: str, source: Remembered[Any]) -> None:
            found[name] = await source.get()

        async def gather_fleet() -> None:
            rows = await node_rows(self._context, here.now)
            found["nodes"] = [(row, *state_of(row)) for row in rows]
            found["health"] = await health(here)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(gather, "counts", self._counts)
            nursery.start_soon(gather, "waits", self._waits)
            nursery.start_soon(gather, "lists", self._lists)
            nursery.start_soon(gather, "trend", self._trend)
            nursery.start_soon(gather_fleet)
        running, failed, causes = found.pop("lists")
        trend = found.pop("trend")
        return {
            **found,
            "running": running,
            "failed": failed,
            "causes": causes,
            "stale": self._waits.stale or not trend.whole,
            "trend_whole": trend.whole,
            "charts": {
                "Throughput": charts.throughput(trend),
                "From runnable to running": charts.latency(trend),
            },
            "loops": loops(self._context, here.now),
        }

    async def _look_at_trend(self) -> Trend:
        return await self._trends.look(self._context.clock.wall())

    async def _look_at_waits(self) -> Waits:
        ids = await self._context.store.read(pages.next_pending, ASKED)
        return group(ids, await reasons(self._context, ids))


def group(ids: Sequence[str], found: dict[str, Reason]) -> Waits:
    """Return the reasons by kind, the most common first."""
    by_kind: dict[str, list[str]] = {}
    for task_id in ids:
        if task_id in found:
            by_kind.setdefault(found[task_id].kind, []).append(task_id)
    groups = [
        Waiting(kind, KINDS.get(kind, kind), len(those), those[0], found[those[0]].text)
        for kind, those in by_kind.items()
    ]
    return Waits(tuple(sorted(groups, key=lambda one: -one.tasks)), len(found))


def _read_lists(
    conn: Connection,
) -> tuple[list[TaskLine], list[TaskLine], dict[str, str]]:
    failed = pages.failed_lately(conn, SHOWN)
    causes = pages.causes(conn, [one.id for one in failed]) if failed else {}
    return pages.at_work(conn, SHOWN), failed, causes


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the fleet is well."""

    problems: tuple[str, ...]
    """What is wrong with the controller itself."""
    incidents: tuple[Incident, ...]
    findings: tuple[Finding, ...]

    @property
    def well(self) -> bool:
        return not (self.problems or self.incidents or self.findings)


async def health(here: Parts) -> Health:
    """Return what stands now, gravest first."""
    context = here.context
    problems = tuple(problem.text for problem in await here.health.look())
    if "guardian_events" in context.store.absent:
        return Health(problems, (), ())

    def read(conn: Connection) -> tuple[list[Incident], list[Finding]]:
        return findings.open_incidents(conn), findings.standing(conn)

    incidents, standing = await context.store.read(read)
    return Health(
        problems,
        tuple(sorted(incidents, key=lambda one: (-one.severity, one.opened_at))),
        tuple(sorted(standing, key=lambda one: (-one.severity, one.check, one.key))),
    )


def state_of(row: dict[str, Any]) -> tuple[str, str]:
    """Return how a node is: a key for its mark, and words."""
    if not row["enabled"]:
        return "off", "disabled"
    if row["quarantined"]:
        return "out", f"in quarantine: {row['quarantine_reason'] or 'no reason given'}"
    if row["reachable"]:
        return "well", "answers"
    if row["last_error"]:
        return "lost", f"does not answer: {row['last_error']}"
    return "unknown", "has not answered yet"


@dataclass(frozen=True, slots=True)
class LoopLine:
    name: str
    interval: float
    cycle: int
    last_ok: float | None
    age: float | None
    """Seconds since its last good step; None where it has had none."""
    state: str
    """on time, late, starting or off."""
    restarts: int
    last_error: str | None


def loops(context: Context, now: float) -> list[LoopLine]:
    """Return the seven loops in their order."""
    found = []
    for name, stats in context.stats.items():
        age = None if stats.last_ok is None else max(0.0, now - stats.last_ok)
        enabled = getattr(context.settings.loops, name).enabled
        since = now - max(stats.last_ok or 0.0, context.started_at, context.watch.last_jump)
        late = stats.interval > 0 and since > 3 * stats.interval
        state = "late" if late else "on time" if age is not None else "starting"
        found.append(
            LoopLine(
                name, stats.interval, stats.cycle, stats.last_ok, age,
                state if enabled else "off", stats.restarts, stats.last_error,
            )
        )  # fmt: skip
    return found
