"""db_sync: nodes.json, projects.json and the spec folders into the database."""

from __future__ import annotations

from pathlib import Path

import structlog

from dispatch_controller.home import Home
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.registrar import Registrar
from dispatch_controller.loops.ways import follow_ways
from dispatch_controller.node_files import NodeEntry, read_nodes, read_projects
from dispatch_controller.runtime.every import every
from dispatch_controller.runtime.substeps import run_substeps
from dispatch_controller.store import backup, events, nodes, tasks
from dispatch_controller.store.checkpoint import GROWN, checkpoint, wal_size
from dispatch_controller.store.nodes import NodeConfig
from dispatch_controller.store.writer import Connection

log = structlog.get_logger(__name__)


class DbSync:
    """The db_sync loop (loops.md). What a file gets wrong is logged once, while it stands."""

    def __init__(self, context: Context, registrar: Registrar) -> None:
        self._context = context
        self._registrar = registrar
        self._home = Home(context.settings.home)
        self._listed: frozenset[str] = frozenset()
        self._told: frozenset[str] = frozenset()

    async def run(self) -> None:
        context = self._context
        await every(
            self.step,
            context.stats["db_sync"],
            interval=context.settings.loops.db_sync.interval,
            wake=context.wakes.db_sync,
            stop=context.stop,
            clock=context.clock,
        )

    async def step(self, cycle: int) -> None:
        await run_substeps(
            "db_sync",
            cycle,
            {
                "projects": self.sync_projects,
                "nodes": self.sync_nodes,
                "specs": self.sync_specs,
                "catalog": self.refresh_catalog,
                "checkpoint": self.checkpoint,
                "backup": self.backup,
            },
        )

    async def sync_projects(self) -> None:
        """Read projects.json; entries with errors keep what they said before."""
        context = self._context
        read = await context.run_sync(read_projects, self._home.projects)
        self._tell("projects", [str(error) for error in read.errors])
        if read.complete:
            wrong = {error.entry for error in read.errors}
            kept = {n: p for n, p in context.knowledge.projects.items() if n in wrong}
            if context.knowledge.projects != {**kept, **read.projects}:
                context.knowledge.projects = {**kept, **read.projects}
                context.wakes.scheduling.set()

    async def sync_nodes(self) -> None:
        """Write nodes.json into the table, and bring the fleet in line with the table."""
        context = self._context
        read = await context.run_sync(read_nodes, self._home.nodes)
        self._tell("nodes", [str(error) for error in read.errors])
        if read.complete:
            wrong = {error.entry for error in read.errors}
            names = frozenset(entry.name for entry in read.nodes) | (self._listed & wrong)
            gone = sorted(self._listed - names)
            configs = [_config(entry) for entry in read.nodes]
            if await context.store.read(nodes.differ, configs) or gone:
                changed = await context.store.write(
                    _write_nodes, context.clock.wall(), configs, gone
                )
                log.info("nodes.json taken over", changed=changed, gone=gone)
            self._listed = names
            context.workers.configured = {
                entry.name: entry.worker_url for entry in read.nodes if entry.worker_url
            }
        rows = await context.store.read(nodes.all_nodes, reputation=context.reputation)
        if list(context.knowledge.nodes.values()) != rows:
            context.knowledge.nodes = {row.name: row for row in rows}
            context.wakes.scheduling.set()
        await follow_ways(context)
        context.fleet.update(rows)

    async def sync_specs(self) -> None:
        """Register the spec folders: new files, changed ones, and those that are gone."""
        settings, knowledge = self._context.settings, self._context.knowledge
        result = await self._registrar.register([settings.specs])
        problems = [f"{e['file']}:{e['line']}: {e['reason']}" for e in result["errors"]]
        for name, project in sorted(knowledge.projects.items()):
            if project.specs_dir is not None:
                folder = _folder(settings.projects, project.specs_dir)
                more = await self._registrar.register([folder], name)
                problems += [f"{e['file']}:{e['line']}: {e['reason']}" for e in more["errors"]]
        self._tell("specs", problems)

    async def refresh_catalog(self) -> None:
        """Read again what specs say beside the database, of all tasks that may still run."""
        context = self._context
        files = await context.store.read(tasks.spec_files)
        before = context.catalog.extras
        await context.run_sync(context.catalog.refresh, files)
        if context.catalog.extras != before:
            context.wakes.scheduling.set()

    async def checkpoint(self) -> None:
        """Fold back the write-ahead log when it has grown."""
        context = self._context
        if await context.run_sync(wal_size, context.store.path) > GROWN:
            await context.run_sync(checkpoint, context.store.path)

    async def backup(self) -> None:
        """Take a snapshot every 24 h; the name of the newest says when that is due."""
        context, folder = self._context, self._home.snapshots
        now = context.clock.wall()
        last = await context.run_sync(backup.newest, folder)
        if last is None or now - last >= backup.EVERY:
            made = await context.run_sync(backup.snapshot, context.store.path, folder, now)
            log.info("snapshot", loop="db_sync", file=str(made))

    def _tell(self, what: str, problems: list[str]) -> None:
        standing = frozenset(f"{what}: {problem}" for problem in problems)
        for problem in sorted(standing - self._told):
            log.error("file has an error", loop="db_sync", problem=problem)
        others = frozenset(told for told in self._told if not told.startswith(f"{what}: "))
        self._told = others | standing


def _folder(projects: Path, specs_dir: str) -> Path:
    return projects / Path(specs_dir).expanduser()


def _config(entry: NodeEntry) -> NodeConfig:
    return NodeConfig(
        name=entry.name,
        ssh_host=entry.ssh_host,
        slots=entry.slots,
        api_mode=entry.api_mode,
        work_dir=entry.work_dir,
        executor=entry.executor,
        priority=entry.priority,
    )


def _write_nodes(
    conn: Connection, now: float, configs: list[NodeConfig], gone: list[str]
) -> list[str]:
    changed = nodes.sync(conn, configs)
    for name in changed:
        events.add(conn, now, "node_changed", node=name)
    for name in gone:
        removed = nodes.remove(conn, name)
        events.add(conn, now, "node_gone", node=name, removed=removed)
    return changed
