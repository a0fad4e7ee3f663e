"""Keeps a service running: the only broad `except` of the program."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
import trio

from dispatch_controller.runtime.stats import LoopStats

log = structlog.get_logger(__name__)

_CONTROL = (trio.Cancelled, KeyboardInterrupt, SystemExit, GeneratorExit)


class ServiceReturned(Exception):
    """A service ended although nobody had asked for a stop."""


class RestartsExhausted(Exception):
    """A service failed more often than its policy allows: the process ends and is restarted."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """More than `limit` failures within `window` seconds end the process.

    Back-off doubles from `first_delay` to `max_delay` while no step succeeds, so a loop that only
    ever fails stays within the limit and goes on trying; the limit is for one that fails, recovers
    and fails faster than it backs off.
    """

    limit: int = 30
    window: float = 600.0
    first_delay: float = 1.0
    max_delay: float = 60.0


def split_control(
    error: BaseException,
) -> tuple[BaseException | None, BaseException | None]:
    """Return (what must be raised on, what is a failure), each None where there is none.

    A failing finaliser during a cancellation gives a group of both, which `except Exception`
    would miss. asyncio.CancelledError counts as a failure: it is no control flow of Trio's.
    """
    if isinstance(error, BaseExceptionGroup):
        return error.split(_CONTROL)
    if isinstance(error, _CONTROL):
        return error, None
    return None, error


async def supervise(
    service: Callable[[], Awaitable[None]],
    stats: LoopStats,
    *,
    stop: trio.Event,
    policy: RestartPolicy,
) -> None:
    """Run `service` until `stop` is set; start it again, with back-off, when it fails.

    Raises RestartsExhausted. A service that returns before the stop is a failure.
    """
    failures: deque[float] = deque()
    delay = policy.first_delay
    while not stop.is_set():
        good_steps = stats.steps
        failure: BaseException | None
        try:
            await service()
            failure = ServiceReturned(f"{stats.name} returned")
        except BaseException as error:  # noqa: BLE001 - split below; control flow is raised on
            control, failure = split_control(error)
            if failure is not None:
                _record(stats, failure)
            if control is not None:
                raise control from None
        else:
            if stop.is_set():
                return
            _record(stats, failure)
        now = trio.current_time()
        failures.append(now)
        while failures[0] <= now - policy.window:
            failures.popleft()
        if len(failures) > policy.limit:
            raise RestartsExhausted(
                f"{stats.name} failed {len(failures)} times in {policy.window:.0f} s"
            ) from failure
        if stats.steps > good_steps:
            delay = policy.first_delay
        with trio.move_on_after(delay):
            await stop.wait()
        delay = min(delay * 2, policy.max_delay)


def _record(stats: LoopStats, failure: BaseException) -> None:
    stats.failed(failure)
    log.error("service failed", loop=stats.name, cycle=stats.cycle, exc_info=failure)
