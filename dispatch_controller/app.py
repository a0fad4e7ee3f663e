"""The composition root: builds the parts, opens the root nursery, owns signals and shutdown.

Decides nothing. The order of a stop: the stop event → HTTP drains by its own trigger, loops that
sleep end at once, steps in flight get the grace → the write queue is drained → SSH is closed.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog
import trio

from dispatch_controller import __version__
from dispatch_controller.catalog import SpecCatalog
from dispatch_controller.core.times import iso
from dispatch_controller.fleet.bundle import build
from dispatch_controller.fleet.registry import Fleet
from dispatch_controller.fleet.ssh_service import SshService
from dispatch_controller.fleet.ssh_settings import SshSettings
from dispatch_controller.home import (
    Controller,
    Home,
    HomeError,
    lock_home,
    owner_id,
    remove_controller,
    write_controller,
)
from dispatch_controller.logs import close_logging, configure_logging
from dispatch_controller.loops.alerts import Alerts
from dispatch_controller.loops.context import Context
from dispatch_controller.loops.db_sync import DbSync
from dispatch_controller.loops.factory import Factory
from dispatch_controller.loops.findings import Findings
from dispatch_controller.loops.guardian import Guardian
from dispatch_controller.loops.health_check import HealthCheck
from dispatch_controller.loops.operator import Operator
from dispatch_controller.loops.probe_workers import ProbeWorkers
from dispatch_controller.loops.reaper import Reaper
from dispatch_controller.loops.recorder import Recorder
from dispatch_controller.loops.registrar import Registrar
from dispatch_controller.loops.rollout import Releases
from dispatch_controller.loops.scheduling import Scheduling
from dispatch_controller.loops.ways import recall_ways
from dispatch_controller.loops.workers import WorkerRegistry
from dispatch_controller.model import Observation
from dispatch_controller.runtime.clock import ClockWatch, SystemClock
from dispatch_controller.runtime.lag import Lag
from dispatch_controller.runtime.stats import LoopStats
from dispatch_controller.runtime.supervise import RestartPolicy, supervise
from dispatch_controller.runtime.threads import in_thread
from dispatch_controller.service.notify import watchdog
from dispatch_controller.settings import Settings
from dispatch_controller.store import endings, history
from dispatch_controller.store.checkpoint import truncate_wal
from dispatch_controller.store.schema import DatabaseUnusable, prepare
from dispatch_controller.store.store import Store
from dispatch_controller.web.application import build_application
from dispatch_controller.web.server import refusal, serve

log = structlog.get_logger(__name__)

Loop = Callable[[], Awaitable[None]]


class Infrastructure(Protocol):
    """Runs until cancelled, and says when it is ready."""

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None: ...


class Web(Protocol):
    """Serves until the stop, then drains; its status is the address."""

    async def __call__(self, *, task_status: trio.TaskStatus[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that runs, built but not started."""

    context: Context
    ssh: Infrastructure
    fleet: Infrastructure
    web: Web
    lag: Lag
    alerts: Alerts
    releases: Releases
    findings: Findings
    loops: dict[str, Loop]


def run(settings: Settings) -> int:
    """Run the controller on its home until SIGTERM or SIGINT; return the exit status.

    Raises HomeError (HomeInUse) where it cannot start, saying what to do.
    """
    home = Home(settings.home)
    home.prepare()
    with lock_home(home):
        configure_logging(
            settings.log_level,
            home.logs,
            known_secrets=settings.secrets(),
        )
        try:
            absent = prepare(home.database)
            if absent:
                log.warning("tables missing: what uses them is off", tables=sorted(absent))
            if not home.nodes.exists():
                log.warning(f"no {home.nodes}: nothing runs until it is written (or made by init)")
            trio.run(_main, settings, home, absent)
        except DatabaseUnusable as error:
            raise HomeError(str(error)) from error
        except ExceptionGroup as group:
            text = refusal(group)
            if text is None:
                raise
            raise HomeError(text) from group
        finally:
            remove_controller(home)
            close_logging()
    return 0


async def _main(settings: Settings, home: Home, absent: frozenset[str]) -> None:
    await live(build_parts(settings, home, absent), home)


async def live(parts: Parts, home: Home) -> None:
    """Run the parts until SIGTERM or SIGINT, and end them in their order."""
    scopes = _Scopes(trio.CancelScope(), trio.CancelScope())
    async with trio.open_nursery() as root:
        await root.start(_watch_signals, parts.context, scopes, name="signals")
        with scopes.infrastructure:
            await _run_infrastructure(parts, home, scopes)
        root.cancel_scope.cancel()
    await parts.context.run_sync(truncate_wal, home.database)
    log.info("stopped")


@dataclass(frozen=True, slots=True)
class _Scopes:
    """What signals end: the services first, everything at the second one."""

    services: trio.CancelScope
    infrastructure: trio.CancelScope


async def _run_infrastructure(parts: Parts, home: Home, scopes: _Scopes) -> None:
    context = parts.context
    drained = trio.Event()
    async with trio.open_nursery() as infrastructure:
        await infrastructure.start(context.store.run, name="store writer")
        await infrastructure.start(parts.ssh.run, name="ssh service")
        await infrastructure.start(parts.fleet.run, name="fleet")
        infrastructure.start_soon(parts.lag.watch, name="event loop lag")
        context.knowledge.endings |= await context.store.read(endings.standing)
        for task_id, failure in (await context.store.read(history.last_failures)).items():
            context.knowledge.remember_failure(task_id, *failure)
        await recall_ways(context)
        await parts.findings.load()
        parts.releases.apply()
        url = await infrastructure.start(_serve, parts, drained, name="web")
        write_controller(home, Controller(os.getpid(), url, iso(context.started_at), __version__))
        print(f"listening on {url}", flush=True)  # noqa: T201 - promised to programs
        log.info("started", url=url, home=str(home.root), version=__version__)
        infrastructure.start_soon(watchdog, context, name="systemd")
        with scopes.services:
            await _run_services(parts)
            await drained.wait()
        log.info("stopping", queued=context.store.depth)
        await context.store.drain()
        infrastructure.cancel_scope.cancel()


async def _serve(parts: Parts, drained: trio.Event, *, task_status: trio.TaskStatus[str]) -> None:
    await parts.web(task_status=task_status)
    drained.set()


async def _run_services(parts: Parts) -> None:
    """Run the loops until the stop; steps in flight then end within the scope's deadline."""
    context = parts.context
    async with trio.open_nursery() as services:
        services.start_soon(
            _supervised, context, LoopStats("alerts"), parts.alerts.run, name="alerts"
        )
        for name, loop in parts.loops.items():
            services.start_soon(_supervised, context, context.stats[name], loop, name=name)


async def _supervised(context: Context, stats: LoopStats, service: Loop) -> None:
    await supervise(service, stats, stop=context.stop, policy=RestartPolicy())


async def _watch_signals(
    context: Context,
    scopes: _Scopes,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """The first SIGTERM or SIGINT stops, with a deadline; a second one cancels what still runs."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            name = signal.Signals(number).name
            if context.stop.is_set():
                log.warning("second signal: everything is cancelled", signal=name)
                scopes.infrastructure.cancel()
                return
            log.info("stop asked for", signal=name)
            scopes.services.deadline = trio.current_time() + context.settings.grace
            stop(context)


def stop(context: Context) -> None:
    """Ask everything to end: loops that sleep do so at once."""
    context.stop.set()
    context.wakes.set_all()


def build_parts(settings: Settings, home: Home, absent: frozenset[str]) -> Parts:
    """Build all parts; nothing runs yet."""
    clock = SystemClock()
    store = Store(home.database, in_thread, absent)
    ssh = SshService(SshSettings(**settings.ssh.model_dump()), in_thread)
    recorders: list[Recorder] = []

    def told(node: str, seen: Sequence[Observation]) -> None:
        recorders[0].take(node, seen)  # the recorder needs the fleet, and the fleet this

    workers = WorkerRegistry()
    fleet = Fleet(
        ssh=ssh,
        owner=owner_id(home),
        wrapper=build(),
        reporter=told,
        clock=clock,
        task_wrapper=None if settings.task_wrapper == "own" else settings.task_wrapper,
        workers=workers,
        api_token=None if settings.api_token is None else settings.api_token.get_secret_value(),
    )
    context = Context(
        store=store,
        fleet=fleet,
        settings=settings,
        clock=clock,
        watch=ClockWatch(clock),
        run_sync=in_thread,
        catalog=SpecCatalog(settings.home),
        rng=random.Random(),  # noqa: S311 - jitter, no secret
        token=lambda: secrets.token_hex(4),
        workers=workers,
        started_at=clock.wall(),
    )
    recorder = Recorder(context)
    recorders.append(recorder)
    registrar = Registrar(context)
    lag = Lag()
    releases = Releases.load(home.root / "wrapper", build(), fleet.release, in_thread)
    alerts = Alerts(context)
    findings = Findings(context, alerts)
    health = HealthCheck(context, lag, findings)
    factory = Factory(context, registrar)
    loops: dict[str, Loop] = {
        "scheduling": Scheduling(context, recorder).run,
        "health_check": health.run,
        "probe_workers": ProbeWorkers(context).run,
        "db_sync": DbSync(context, registrar).run,
        "reaper": Reaper(context, recorder).run,
        "guardian": Guardian(context, findings, releases).run,
        "factory": factory.run,
    }
    enabled = {name: loop for name, loop in loops.items() if getattr(settings.loops, name).enabled}
    door = build_application(context, recorder, registrar, Operator(context), health, factory)
    web = partial(serve, door, settings, stop=context.stop)
    return Parts(context, ssh, fleet, web, lag, alerts, releases, findings, enabled)
