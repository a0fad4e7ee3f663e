"""What the pages of projects show: the list, and one project with its drawing."""

from __future__ import annotations

from functools import partial
from typing import Any

from dispatch_controller.core import ids
from dispatch_controller.loops.context import Context
from dispatch_controller.store import pages, tasks, views
from dispatch_controller.store.pages import GraphTask
from dispatch_controller.store.writer import Connection
from dispatch_controller.web.answers import refuse
from dispatch_controller.web.drawing import HEIGHT, WIDTH, draw
from dispatch_controller.web.remembered import Remembered

MOST_DRAWN = 400
"""Tasks of a drawing: more of them nobody can read, nor draw quickly."""


class Projects:
    """Gathers both pages."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._counted = Remembered(
            context.store, lambda: context.store.read(tasks.projects), costly=True
        )

    async def listed(self) -> dict[str, Any]:
        """Return all projects: those of projects.json, and those that have tasks."""
        knowledge = self._context.knowledge
        counted = {str(row["project"]): row["tasks"] for row in await self._counted.get()}
        return {
            "stale": self._counted.stale,
            "projects": [
                (name, counted.get(name, {}), knowledge.project(name))
                for name in sorted(counted.keys() | knowledge.projects.keys())
            ],
        }

    async def one(self, name: str) -> dict[str, Any]:
        """Return a project with its drawing. Raises Problem (404)."""
        context = self._context

        def read(conn: Connection) -> tuple[dict[str, int], list[GraphTask], int]:
            found, total = pages.graph(conn, name, MOST_DRAWN)
            return views.project_counts(conn, name), found, total

        counts, found, total = await context.store.read(read)
        if not total and name not in context.knowledge.projects:
            refuse(404, f"there is no project {ids.shown(name)}")
        structure = tuple((task.id, task.depends_on) for task in found)
        drawing = await context.run_sync(partial(draw, structure))
        return {
            "project": name,
            "counts": counts,
            "entry": context.knowledge.project(name),
            "statuses": {task.id: task.status for task in found},
            "drawing": drawing,
            "drawn": len(found),
            "total": total,
            "box": (WIDTH, HEIGHT),
        }
