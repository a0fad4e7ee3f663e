"""A worker's composition root: builds the parts, runs them until SIGTERM or SIGINT.

The tasks are no children of this process: they go on, and the next worker finds them.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import httpx
import structlog
import trio

from dispatch_controller.fleet.bundle import build
from dispatch_controller.fleet.http import new_client, worker_token
from dispatch_controller.fleet.local import LocalMachine
from dispatch_controller.fleet.serve import ServeTransport
from dispatch_controller.home import Home, HomeError, HomeInUse, lock_home, owner_id, unusable
from dispatch_controller.logs import close_logging, configure_logging
from dispatch_controller.runtime.clock import SystemClock
from dispatch_controller.runtime.every import Wake, every
from dispatch_controller.runtime.stats import LoopStats
from dispatch_controller.runtime.supervise import RestartPolicy, supervise
from dispatch_controller.runtime.threads import in_thread
from dispatch_controller.settings import Settings
from dispatch_controller.web.server import refusal, serve
from dispatch_controller.web.worker_application import build_worker_application
from dispatch_controller.worker.door import WorkerDoor
from dispatch_controller.worker.intake import Intake
from dispatch_controller.worker.ledger import Ledger
from dispatch_controller.worker.link import Link
from dispatch_controller.worker.options import Options
from dispatch_controller.worker.reporter import Reporter
from dispatch_controller.worker.service import BEAT, COLLECT, POLL, Service

log = structlog.get_logger(__name__)


def run(options: Options) -> None:
    """Serve until SIGTERM or SIGINT. Raises HomeError (HomeInUse)."""
    state = Home(options.state)
    try:
        options.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(options.state, error) from error
    try:
        lock = lock_home(state)
    except HomeInUse as error:
        raise WorkerInUse(options, error.pid) from error
    with lock:
        configure_logging(
            options.log_level, None, known_secrets=[options.token] if options.token else []
        )
        try:
            trio.run(_main, options, owner_id(state))
        except ExceptionGroup as group:
            text = refusal(group)
            if text is None:
                raise
            raise HomeError(text) from group
        finally:
            close_logging()


class WorkerInUse(HomeInUse):
    def __init__(self, options: Options, pid: int | None) -> None:
        HomeError.__init__(
            self,
            f"another worker (pid {pid or 'not known'}) serves {options.node} from "
            f"{options.work_dir}; stop it first, or give this one its own --work-dir",
        )
        self.pid = pid


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that runs, built but not started."""

    options: Options
    clock: SystemClock
    ledger: Ledger
    transport: ServeTransport
    intake: Intake
    service: Service
    reporter: Reporter
    door: WorkerDoor
    stop: trio.Event

    @property
    def wakes(self) -> tuple[Wake, ...]:
        return (self.service.wake_beat, self.service.wake_poll)


def build_parts(options: Options, owner: str, client: httpx.AsyncClient) -> Parts:
    """Build all parts; nothing runs yet. `owner`: 16 hex digits, of what this worker starts."""
    clock = SystemClock()
    ledger = Ledger(options.slots)
    link = Link(client, options.controller, options.token)
    transport = ServeTransport(
        LocalMachine(options.node), str(options.work_dir), owner, build(), ledger.take, clock
    )
    intake = Intake(ledger, transport, clock)
    reporter = Reporter(options.node, ledger, link, transport, clock)
    service = Service(options.node, ledger, link, intake, reporter, transport, clock)
    door = WorkerDoor(options.node, ledger, intake, transport, service, clock)
    return Parts(options, clock, ledger, transport, intake, service, reporter, door, trio.Event())


async def _main(options: Options, owner: str) -> None:
    async with new_client() as client:
        parts = build_parts(options, owner, client)
        async with trio.open_nursery() as nursery:
            await nursery.start(_watch_signals, parts, name="signals")
            _supervise(nursery, parts, "serve", parts.transport.run)
            if options.listen is not None:
                url = await nursery.start(listen, parts, options.listen, name="web")
                parts.service.url = await in_thread(_shown_url, url, options.controller)
                print(f"listening on {url}", flush=True)  # noqa: T201 - promised to programs
            else:
                _supervise(nursery, parts, "poll", partial(_poll, parts))
            _supervise(nursery, parts, "beat", partial(_every, parts, "beat"))
            _supervise(nursery, parts, "collect", partial(_every, parts, "collect"))
            _supervise(nursery, parts, "announce", parts.service.announce)
            _supervise(nursery, parts, "report", parts.reporter.run)
            log.info("serving", node=options.node, slots=options.slots, by=options.controller)
            await parts.stop.wait()
            log.info("stopping: tasks go on")
            nursery.cancel_scope.cancel()


def _supervise(
    nursery: trio.Nursery, parts: Parts, name: str, part: Callable[[], Awaitable[None]]
) -> None:
    run_it = partial(supervise, part, LoopStats(name), stop=parts.stop, policy=RestartPolicy())
    nursery.start_soon(run_it, name=name)


async def _every(parts: Parts, name: str) -> None:
    service = parts.service
    step, interval, wake = {
        "beat": (service.beat, BEAT, service.wake_beat),
        "collect": (service.collect, COLLECT, Wake()),
    }[name]
    await every(
        step, LoopStats(name), interval=interval, wake=wake, stop=parts.stop, clock=parts.clock
    )


async def _poll(parts: Parts) -> None:
    """Poll; what was fetched starts beside the next polls."""
    service = parts.service
    async with trio.open_nursery() as starts:

        async def step(cycle: int) -> None:
            await service.poll(starts)

        await every(
            step, LoopStats("poll"), interval=POLL, wake=service.wake_poll, stop=parts.stop,
            clock=parts.clock,
        )  # fmt: skip


async def listen(
    parts: Parts,
    address: tuple[str, int],
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on an address until the stop; `task_status` gets the URL."""
    options = parts.options
    token = None if options.token is None else worker_token(options.token, options.node)
    settings = Settings.model_validate(  # what the server needs of them; nothing is read
        {"home": options.work_dir, "host": address[0], "port": address[1], "api_token": token}
    )
    door = build_worker_application(parts.door.answer, settings)
    await serve(door, settings, stop=parts.stop, task_status=task_status)


def _shown_url(url: str, controller: str) -> str:
    """Return the address to tell the controller: where all are listened on, the one it sees."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    if host not in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return url
    there = urlsplit(controller)
    try:
        found = socket.getaddrinfo(
            there.hostname, there.port or 80, type=socket.SOCK_DGRAM,
            family=socket.AF_INET if host == "0.0.0.0" else 0,  # noqa: S104
        )  # fmt: skip
        with socket.socket(found[0][0], socket.SOCK_DGRAM) as probe:
            probe.connect(found[0][4])  # sends nothing: asks the kernel for the way
            own = probe.getsockname()[0]
    except OSError:
        own = socket.gethostname()
    return f"http://[{own}]:{port}" if ":" in own else f"http://{own}:{port}"


async def _watch_signals(
    parts: Parts, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            parts.stop.set()
            for wake in parts.wakes:
                wake.set()
