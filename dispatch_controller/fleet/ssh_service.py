"""The only place where asyncio lives: a loop inside Trio that nobody outside ever touches.

Tasks outside `open_loop` never await asyncio (they would get its CancelledError, which passes
every `except Exception`, when the loop ends). They put a request into a channel; a dispatcher
inside starts it; its end comes back as a value. A loop that dies answers every open request with
TransportLost and is opened anew.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import outcome
import structlog
import trio
import trio_asyncio

from dispatch_controller.fleet.ssh_connection import SshLink
from dispatch_controller.fleet.ssh_settings import SshSettings, SshTarget
from dispatch_controller.fleet.transport import TransportLost
from dispatch_controller.runtime.stats import LoopStats
from dispatch_controller.runtime.supervise import RestartPolicy, split_control, supervise
from dispatch_controller.runtime.threads import RunSync

log = structlog.get_logger(__name__)

T = TypeVar("T")
Work = Callable[[SshLink], Awaitable[T]]

# The delay reaches its end long before the limit can: the service never gives up.
_POLICY = RestartPolicy(limit=10_000, window=600.0, first_delay=0.05, max_delay=5.0)


class _Request(Generic[T]):
    def __init__(self, node: str, target: SshTarget, work: Work[T]) -> None:
        self.node = node
        self.target = target
        self.work = work
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.result: outcome.Outcome[T] = outcome.Error(
            TransportLost(node, "the SSH service stopped")
        )

    def answer(self, result: outcome.Outcome[T]) -> None:
        self.result = result
        self.done.set()


class SshService:
    """Runs work on SSH connections for callers on Trio's side."""

    def __init__(self, settings: SshSettings, run_sync: RunSync) -> None:
        self.settings = settings
        self.stats = LoopStats("ssh")
        self._run_sync = run_sync
        self._requests: trio.MemorySendChannel[_Request[Any]] | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. A loop that fails is recorded in `stats` and opened anew."""
        ready = False

        def started() -> None:
            nonlocal ready
            if not ready:
                ready = True
                task_status.started()

        async def loop() -> None:
            await self._loop(started)

        await supervise(loop, self.stats, stop=trio.Event(), policy=_POLICY)

    async def call(self, node: str, target: SshTarget, work: Work[T]) -> T:
        """Run `work(link)` inside the loop and return or raise what it does.

        A cancelled caller leaves at once; the work is cancelled and cleans up behind it.
        """
        if self._requests is None:
            raise TransportLost(node, "the SSH service is not running")
        request = _Request(node, target, work)
        self._requests.send_nowait(request)
        try:
            await request.done.wait()
        finally:
            request.scope.cancel()
        return request.result.unwrap()

    async def _loop(self, started: Callable[[], None]) -> None:
        async with trio_asyncio.open_loop(), trio.open_nursery() as nursery:
            send, receive = trio.open_memory_channel[_Request[Any]](math.inf)
            links: dict[tuple[str, SshTarget], SshLink] = {}
            try:
                self._requests = send
                started()
                async for request in receive:
                    key = (request.node, request.target)
                    if key not in links:
                        links[key] = SshLink(
                            *key, self.settings, self._run_sync, nursery.start_soon
                        )
                    # From here, so that the task inherits the loop's context.
                    nursery.start_soon(self._handle, request, links[key])
            finally:
                self._requests = None
                send.close()
                for link in links.values():
                    link.drop()
                _lose_all(receive)

    async def _handle(self, request: _Request[Any], link: SshLink) -> None:
        try:
            with request.scope:
                result = await outcome.acapture(request.work, link)
                if isinstance(result, outcome.Error):
                    control, failure = split_control(result.error)
                    if control is not None:
                        raise control
                    result = outcome.Error(self._lost(request.node, failure))
                else:
                    self.stats.steps += 1  # good work resets the restarts' back-off
                request.answer(result)
        finally:
            request.done.set()

    def _lost(self, node: str, failure: BaseException | None) -> TransportLost:
        if isinstance(failure, TransportLost):
            return failure
        if not isinstance(failure, asyncio.CancelledError):
            log.error("unforeseen SSH failure", node=node, exc_info=failure)
        return TransportLost(node, f"SSH failed: {type(failure).__name__}: {failure}")


def _lose_all(receive: trio.MemoryReceiveChannel[_Request[Any]]) -> None:
    while True:
        try:
            receive.receive_nowait().done.set()
        except (trio.WouldBlock, trio.EndOfChannel):
            return
