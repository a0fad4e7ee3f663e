"""Binds the address and runs hypercorn on it until the stop."""

from __future__ import annotations

import errno
import logging
import resource
import socket
from functools import partial
from typing import Any, cast

import hypercorn.trio
import trio
from hypercorn.config import Config, Sockets

from dispatch_controller.runtime.stats import LoopStats
from dispatch_controller.runtime.supervise import RestartPolicy, supervise
from dispatch_controller.settings import Settings
from dispatch_controller.web.intake import Door

KEEP_ALIVE = 15
"""Seconds a connection may be open without a whole request head."""
MOST_GRACE = 10.0
"""Seconds that requests in flight get at a stop, at the most."""
STALLED = 15_000
"""Milliseconds after which the kernel gives up a client that takes nothing of what is sent."""
BACKLOG = 512
DESCRIPTORS = 8192


class ListenError(Exception):
    """HTTP cannot listen as the settings say; the text says what to do."""


class PortInUse(ListenError):
    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"port {port} of {host} is in use by another program: stop that one, or take another "
            "port with --port or CONTROLLER_PORT (0 takes a free one)"
        )
        self.host = host
        self.port = port


def refusal(group: BaseExceptionGroup[BaseException]) -> str | None:
    """Return what to do where a program ended for nothing but a ListenError, else None."""
    refused, rest = group.split(ListenError)
    if refused is None or rest is not None:
        return None
    error: BaseException = refused
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


async def serve(
    door: Door,
    settings: Settings,
    *,
    stop: trio.Event,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop`, then drain: requests in flight end, streams watch the stop themselves.

    `task_status` gets the URL once the socket listens. Raises ListenError (PortInUse) before that.
    A crash of the server is logged and it is started again on the same socket.
    """
    listening = await listen(settings.host, settings.port)
    _make_room()
    with listening:
        config = _Config(settings, listening)
        config.check_tls(settings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_close_at_stop, listening, stop, name="close port")
            task_status.started(_url(settings, listening))
            run = partial(
                hypercorn.trio.serve,
                cast(Any, door),
                config,
                shutdown_trigger=stop.wait,
                mode="asgi",
            )
            await supervise(run, LoopStats("web"), stop=stop, policy=RestartPolicy(first_delay=0.1))
            nursery.cancel_scope.cancel()


async def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises ListenError."""
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ListenError(f"cannot listen on {host}: {error.strerror or error}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # hypercorn shields what it sends from every cancellation, a stop among them.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED)
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(host, port) from error
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listening


def _make_room() -> None:
    """Have file descriptors for many connections beside the database's: macOS begins with 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _close_at_stop(listening: socket.socket, stop: trio.Event) -> None:
    """Refuse new connections at once: the server has copies of the socket, and closes those."""
    await stop.wait()
    listening.close()


def _url(settings: Settings, listening: socket.socket) -> str:
    scheme = "http" if settings.tls_certificate is None else "https"
    # Listening everywhere is no address that a command on this machine could call.
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    host = f"[{reachable}]" if ":" in reachable else reachable
    return f"{scheme}://{host}:{listening.getsockname()[1]}"


class _Config(Config):
    """hypercorn's configuration, over a socket that listens already."""

    accesslog = None
    alpn_protocols = ["http/1.1"]  # noqa: RUF012 - declared so by hypercorn
    backlog = BACKLOG
    include_server_header = False
    keep_alive_timeout = KEEP_ALIVE

    def __init__(self, settings: Settings, listening: socket.socket) -> None:
        self.errorlog = logging.getLogger("hypercorn.error")
        self.errorlog.setLevel(logging.WARNING)  # its INFO repeats ours
        self.graceful_timeout = min(settings.grace, MOST_GRACE)
        self._listening = listening
        if settings.tls_certificate is not None:
            self.certfile = str(settings.tls_certificate)
            self.keyfile = str(settings.tls_key)

    def create_sockets(self) -> Sockets:
        copy = self._listening.dup()
        copy.setblocking(False)
        return Sockets([copy], [], []) if self.ssl_enabled else Sockets([], [copy], [])

    def check_tls(self, settings: Settings) -> None:
        """Raise ListenError where certificate and key cannot be used."""
        try:
            self.create_ssl_context()
        except (OSError, ValueError) as error:
            raise ListenError(
                f"TLS with {settings.tls_certificate} and {settings.tls_key}: {error}"
            ) from error
