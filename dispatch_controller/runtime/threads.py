"""Blocking calls leave Trio's thread through one injected function.

`MockClock`'s autojump does not see threads, so tests replace `in_thread` by an inline runner;
nothing else in the package may name `trio.to_thread` (a lint rule).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, TypeVarTuple

import trio
from trio.to_thread import run_sync  # noqa: TID251 - the one place

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class RunSync(Protocol):
    """Runs a blocking function and returns what it returns, or raises what it raises."""

    async def __call__(
        self,
        fn: Callable[[*Ts], T],
        /,
        *args: *Ts,
        limiter: trio.CapacityLimiter | None = None,
    ) -> T: ...


async def in_thread(
    fn: Callable[[*Ts], T], /, *args: *Ts, limiter: trio.CapacityLimiter | None = None
) -> T:
    """Run `fn(*args)` in a worker thread. A cancellation waits for it to return.

    A time-out around this call does not fire until the thread returns, so `fn` must bring its own.
    """
    return await run_sync(fn, *args, limiter=limiter)
