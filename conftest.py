"""Fixtures for every test; the policy for clocks and threads is in docs/testing.md."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import pytest
import trio

from dispatch_controller.runtime.threads import in_thread
from dispatch_controller.store.schema import prepare
from dispatch_controller.store.store import Store

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell: the programs that tests start would ignore Ctrl-C too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def run_inline(
    fn: Callable[[*Ts], T], /, *args: *Ts, limiter: trio.CapacityLimiter | None = None
) -> T:
    """The stand-in for `in_thread` under a mock clock, whose autojump does not see threads."""
    if limiter is not None:
        async with limiter:
            return fn(*args)
    await trio.lowlevel.checkpoint()
    return fn(*args)


@pytest.fixture
def db_path(tmp_path: Path) -> Path:
    """A new dispatch.db."""
    path = tmp_path / "dispatch.db"
    prepare(path)
    return path


@pytest.fixture
async def store(db_path: Path, nursery: trio.Nursery) -> AsyncIterator[Store]:
    """A store with real worker threads, its writer running."""
    store = Store(db_path, in_thread)
    await nursery.start(store.run)
    yield store


@pytest.fixture
async def inline_store(db_path: Path, nursery: trio.Nursery) -> AsyncIterator[Store]:
    """A store without threads: for tests on the mock clock."""
    store = Store(db_path, run_inline)
    await nursery.start(store.run)
    yield store
