"""A host reached by SSH, as a `Machine`."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from dispatch_controller.fleet.files import ShellFiles
from dispatch_controller.fleet.quoting import shell_line
from dispatch_controller.fleet.ssh_channel import LineSession
from dispatch_controller.fleet.ssh_connection import SshLink
from dispatch_controller.fleet.ssh_service import SshService
from dispatch_controller.fleet.ssh_settings import SshSettings, SshTarget
from dispatch_controller.fleet.transport import Completed, LineChannel, NodeUnfit, TransportLost

__all__ = ["SshMachine", "SshService", "SshSettings", "SshTarget"]


class SshMachine(ShellFiles):
    """`Machine` over the service's pooled connection."""

    def __init__(self, service: SshService, node: str, ssh_host: str) -> None:
        self.node = node
        self.transfer_timeout = service.settings.transfer_timeout
        self._service = service
        self._ssh_host = ssh_host

    def _target(self) -> SshTarget:
        try:
            return SshTarget.parse(self._ssh_host)
        except ValueError as error:
            raise NodeUnfit(self.node, str(error)) from error

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float | None = None
    ) -> Completed:
        line = shell_line(argv)
        limit = self._service.settings.command_timeout if timeout is None else timeout

        async def work(link: SshLink) -> Completed:
            return await link.execute(line, stdin, limit)

        return await self._service.call(self.node, self._target(), work)

    async def open(self, argv: Sequence[str]) -> LineChannel:
        line = shell_line(argv)
        opened: list[LineSession] = []

        async def work(link: SshLink) -> LineSession:
            opened.append(await link.open(line))
            return opened[0]

        try:
            session = await self._service.call(self.node, self._target(), work)
        except BaseException:
            for unseen in opened:  # the caller was cancelled as it opened
                unseen.scope.cancel()
            raise
        return SshLineChannel(self.node, session)

    async def check(self, timeout: float = 10.0) -> float:
        """Return the seconds an empty command takes.

        A connection that does not answer is closed, so that the next call makes a new one.
        """
        started = trio.current_time()
        try:
            await self.run(["true"], timeout=timeout)
        except TransportLost:
            await self.reset()
            raise
        return trio.current_time() - started

    async def reset(self) -> None:
        """Close the pooled connection and all its channels."""

        async def work(link: SshLink) -> None:
            link.drop()

        await self._service.call(self.node, self._target(), work)


class SshLineChannel:
    """`LineChannel` over a session inside the service; only Trio's channels lie in between."""

    def __init__(self, node: str, session: LineSession) -> None:
        self._node = node
        self._session = session

    async def send(self, line: bytes) -> None:
        try:
            await self._session.queue.send(line)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise TransportLost(self._node, self._session.ending()) from None

    async def receive(self) -> bytes:
        try:
            return await self._session.lines.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise TransportLost(self._node, self._session.ending()) from None

    async def aclose(self) -> None:
        self._session.scope.cancel()
        await trio.lowlevel.checkpoint()
