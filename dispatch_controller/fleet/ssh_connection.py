"""One pooled connection to a node, many channels. Everything here runs inside the SSH service."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable
from typing import Any

import asyncssh
import trio
from trio_asyncio import aio_as_trio

from dispatch_controller.fleet.ssh_channel import CollectingSession, LineSession, ProgramSession
from dispatch_controller.fleet.ssh_errors import HostKeyWitness, explain
from dispatch_controller.fleet.ssh_options import Prepared, prepare
from dispatch_controller.fleet.ssh_settings import SshSettings, SshTarget
from dispatch_controller.fleet.transport import Completed, NodeUnfit, TransportLost
from dispatch_controller.runtime.threads import RunSync

MAX_JUMPS = 5
BATCH_BYTES = 256 * 1024

Spawn = Callable[..., Any]
"""`start_soon` of a nursery inside the service."""


class _Attempt:
    """A connection being made; however many wait for it, one is made."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.failure: TransportLost | None = None


class SshLink:
    """The way to one node. Raises TransportLost or NodeUnfit, as `Machine` says."""

    def __init__(
        self, node: str, target: SshTarget, settings: SshSettings, run_sync: RunSync, spawn: Spawn
    ) -> None:
        self.node = node
        self.connects = 0
        """How often a connection was made."""
        self._target = target
        self._settings = settings
        self._run_sync = run_sync
        self._spawn = spawn
        self._slots = trio.Semaphore(settings.max_channels)
        self._connection: asyncssh.SSHClientConnection | None = None
        self._attempt: _Attempt | None = None
        self._talking: set[LineSession] = set()

    async def execute(self, line: str, stdin: bytes, timeout: float) -> Completed:
        """Run a shell line to its end, within `timeout` seconds once a channel is free."""
        connection = await self._connected()
        session = CollectingSession()
        async with self._slots:
            with trio.move_on_after(timeout) as scope:
                try:
                    await self._start(connection, session, line)
                    await session.write(stdin)
                    session.end_input()
                    await session.ended.wait()
                finally:
                    session.close(signal="TERM")
        if scope.cancelled_caught:
            raise TransportLost(self.node, f"no end within {timeout:g} s of: {line[:80]}")
        if session.overflow:
            raise TransportLost(self.node, f"too much output from: {line[:80]}")
        if session.returncode is None:
            raise TransportLost(self.node, f"the connection was lost during: {line[:80]}")
        return Completed(session.returncode, session.stdout, session.stderr)

    async def open(self, line: str) -> LineSession:
        """Start a program to talk with; its session outlives the call until it is closed."""
        connection = await self._connected()
        session = LineSession()
        try:
            await self._start(connection, session, line)
        except BaseException:
            session.close()
            raise
        self._talking.add(session)
        self._spawn(self._pump, session)
        return session

    def drop(self) -> None:
        """Close the connection, and with it every channel; the next call makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        for session in list(self._talking):
            # asyncssh's own callback may never come when the loop itself is going down.
            session.connection_lost(None)
        self._talking.clear()

    async def _pump(self, session: LineSession) -> None:
        """Write what was queued, many lines at a time, until either side ends it."""
        try:
            with session.scope, contextlib.suppress(trio.ClosedResourceError):
                async for first in session.queued:
                    batch, size = [first], len(first)
                    with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
                        while size < BATCH_BYTES:
                            batch.append(session.queued.receive_nowait())
                            size += len(batch[-1])
                    await session.write(b"\n".join([*batch, b""]))
        finally:
            session.close()
            self._talking.discard(session)
            session.connection_lost(None)

    async def _start(
        self, connection: asyncssh.SSHClientConnection, session: ProgramSession, line: str
    ) -> None:
        """Open a channel and run the line in it.

        Shielded: a channel whose opening is given up half-way would stay open unseen and use up
        one of the server's sessions. A connection that opens none in time is of no use.
        """
        limit = self._settings.connect_timeout
        with trio.move_on_after(limit, shield=True) as scope:
            try:
                await aio_as_trio(connection.create_session)(
                    lambda: session, line, request_pty=False, encoding=None
                )
            except (asyncssh.Error, OSError) as error:
                raise TransportLost(self.node, f"no SSH channel: {error}") from error
        if scope.cancelled_caught:
            self._forget(connection)
            connection.abort()
            raise TransportLost(self.node, f"no SSH channel within {limit:g} s; connection closed")
        await trio.lowlevel.checkpoint_if_cancelled()

    def _forget(self, connection: asyncssh.SSHClientConnection) -> None:
        if self._connection is connection:
            self._connection = None

    async def _connected(self) -> asyncssh.SSHClientConnection:
        while self._connection is None or self._connection.is_closed():
            attempt = self._attempt
            if attempt is None:
                # A task of its own: the caller that began it may be cancelled, others wait on.
                attempt = self._attempt = _Attempt()
                self._spawn(self._connect, attempt)
            await attempt.done.wait()
            if attempt.failure is not None:
                raise attempt.failure.again()
        return self._connection

    async def _connect(self, attempt: _Attempt) -> None:
        attempt.failure = TransportLost(self.node, "the SSH service stopped")
        try:
            self._connection = await self._dial(self._target)
            self.connects += 1
            attempt.failure = None
        except TransportLost as lost:
            attempt.failure = lost
        finally:
            self._attempt = None
            attempt.done.set()

    async def _dial(
        self,
        target: SshTarget,
        via: asyncssh.SSHClientConnection | None = None,
        depth: int = 0,
    ) -> asyncssh.SSHClientConnection:
        """Connect to `target`, through its jump hosts, each checked like the target itself."""
        try:
            prepared = await self._run_sync(prepare, self._settings, target)
            jumps = [SshTarget.parse(jump) for jump in prepared.jumps if jump != target.host]
        except (ValueError, OSError, asyncssh.Error) as error:
            raise NodeUnfit(self.node, f"SSH settings for {target.text}: {error}") from error
        if depth > MAX_JUMPS:
            raise NodeUnfit(self.node, f"ProxyJump of {target.text} goes round in circles")
        first = via
        try:
            if via is None:
                for jump in jumps:
                    via = await self._dial(jump, via, depth + 1)
            connection = await self._handshake(target, prepared, via)
        except BaseException:
            if via is not None and via is not first:
                via.abort()
            raise
        if via is not None:
            connection.set_tunnel(via)  # closed together
        return connection

    async def _handshake(
        self,
        target: SshTarget,
        prepared: Prepared,
        via: asyncssh.SSHClientConnection | None,
    ) -> asyncssh.SSHClientConnection:
        witness = HostKeyWitness()
        limit = self._settings.connect_timeout
        command = prepared.options.proxy_command
        sock = await self._proxy(list(command)) if command and via is None else None
        with trio.move_on_after(limit):
            try:
                connection: asyncssh.SSHClientConnection = await aio_as_trio(asyncssh.connect)(
                    target.host,
                    () if target.port is None else target.port,
                    tunnel=via,
                    sock=sock,
                    config=None,
                    options=prepared.options,
                    known_hosts=prepared.known_hosts,
                    client_factory=lambda: witness,
                )
                return connection
            except (asyncssh.Error, OSError, ValueError) as error:
                raise explain(self.node, error, prepared, witness) from error
        where = f"{prepared.host}:{prepared.port}"
        raise TransportLost(self.node, f"no SSH connection to {where} within {limit:g} s")

    async def _proxy(self, command: list[str]) -> socket.socket:
        """Start the config's ProxyCommand; return the socket that leads through it.

        Not asyncssh's own way: asyncio waits for children in threads that outlive its loop.
        """
        ours, its = socket.socketpair()
        try:
            process = await trio.lowlevel.open_process(
                command, stdin=its, stdout=its, stderr=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            ours.close()
            raise NodeUnfit(self.node, f"ProxyCommand {command[0]}: {error}") from error
        finally:
            its.close()
        self._spawn(_mind, process)
        return ours


async def _mind(process: trio.Process) -> None:
    """Wait for a ProxyCommand, which ends with its connection; end it with the service."""
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
