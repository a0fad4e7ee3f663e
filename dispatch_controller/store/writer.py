"""The group-commit writer: the one place that writes to dispatch.db.

Units queue up on Trio's thread; a worker thread waits for its turn at the database, takes what is
queued, and commits it together, each unit inside its own SAVEPOINT. No caller hears of success
before COMMIT. The rules are those of database.md, "How the controller uses it".
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import outcome
import trio

from dispatch_controller.runtime.threads import RunSync
from dispatch_controller.store.connection import BUSY_TIMEOUT, Connect, get_db, is_busy

T = TypeVar("T")
Parameters = Sequence[object] | Mapping[str, object]

MOST_UNITS = 256
"""Units committed together at the most."""

ASK_AGAIN = 0.003
"""Seconds between two requests for the write lock. SQLite's own waiting backs off to 100 ms and
is passed by every neighbour that asks more often."""


class StoreClosed(Exception):
    """The store stopped before this unit was written: nothing of it is in the database."""


class Connection:
    """What a unit of work gets of a connection: statements, and no way to end the transaction."""

    __slots__ = ("_conn",)

    _TRANSACTION = ("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE")

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn

    def execute(self, sql: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        if sql.lstrip()[:9].upper().startswith(self._TRANSACTION):
            raise ValueError(f"a unit of work does not control its transaction: {sql}")
        try:
            return self._conn.execute(sql, parameters)
        except UnicodeEncodeError:  # half of a surrogate pair, as nodes and clients may send
            return self._conn.execute(sql, _encodable(parameters))

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Take back what the block did, and nothing else, where it raises."""
        self._conn.execute("SAVEPOINT apart")
        try:
            yield
        except BaseException:
            if self._conn.in_transaction:
                self._conn.execute("ROLLBACK TO apart")
                self._conn.execute("RELEASE apart")
            raise
        self._conn.execute("RELEASE apart")

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> sqlite3.Cursor:
        return self._conn.executemany(sql, parameters)


def _encodable(parameters: Parameters) -> Parameters:
    def clean(value: object) -> object:
        return value.encode(errors="replace").decode() if isinstance(value, str) else value

    if isinstance(parameters, Mapping):
        return {name: clean(value) for name, value in parameters.items()}
    return [clean(value) for value in parameters]


Unit = Callable[[Connection], T]


@dataclass(slots=True, eq=False)
class _Queued(Generic[T]):
    unit: Unit[T]
    since: float
    task: trio.lowlevel.Task


@dataclass(slots=True)
class WriterStats:
    """For the metrics and the health check."""

    units: int = 0
    batches: int = 0
    blocked_since: float | None = None
    """Trio's time since which writing has not succeeded although something is queued."""
    last_error: str | None = None
    waits: list[float] = field(default_factory=list)
    """Seconds from queueing to commit, since somebody last took the list."""
    sizes: list[int] = field(default_factory=list)


class Writer:
    """Commits units of work, one batch at a time."""

    def __init__(self, path: Path, run_sync: RunSync, connect: Connect = get_db) -> None:
        self.stats = WriterStats()
        self.next_commit = trio.Event()
        """Set when something has been committed; each commit replaces it by a new one."""
        self._path = path
        self._run_sync = run_sync
        self._connect = connect
        self._limiter = trio.CapacityLimiter(1)
        self._queue: deque[_Queued[Any]] = deque()
        self._lock = threading.Lock()  # the queue is taken from in the worker thread
        self._filled = trio.Event()
        self._give_up = threading.Event()
        self._closed = False
        self.ended = trio.Event()
        """Set when `run` is over: what was accepted is written or refused."""

    @property
    def depth(self) -> int:
        return len(self._queue)

    async def write(self, unit: Unit[T]) -> T:
        """Return what `unit` returned, once it is committed; raise what it raised.

        A caller cancelled while its unit is queued takes it back and nothing was written; once
        the writer took it, the caller gets the outcome. `unit` may be run more than once.
        Raises StoreClosed after the writer has stopped.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise StoreClosed("the database writer has stopped")
        queued = _Queued(unit, trio.current_time(), trio.lowlevel.current_task())
        with self._lock:
            self._queue.append(queued)
        self._filled.set()
        if self.stats.blocked_since is None:
            self.stats.blocked_since = queued.since

        def abort(_: Callable[[], None]) -> trio.lowlevel.Abort:
            with self._lock:
                if queued not in self._queue:
                    return trio.lowlevel.Abort.FAILED
                self._queue.remove(queued)
            return trio.lowlevel.Abort.SUCCEEDED

        return cast(T, await trio.lowlevel.wait_task_rescheduled(abort))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until `drain` is called and the queue is empty, or until cancelled.

        Cancelled, it finishes the batch that is being committed and refuses the rest.
        """
        task_status.started()
        try:
            while True:
                await self._filled.wait()
                if not self._queue:
                    if self._closed:
                        return
                    self._filled = trio.Event()
                    self.stats.blocked_since = None
                    continue
                await self._write_batch()
        finally:
            self._closed = True
            self._refuse_rest()
            self.ended.set()

    def drain(self) -> None:
        """Take no more units; `run` returns when those queued are written."""
        self._closed = True
        self._filled.set()

    async def _write_batch(self) -> None:
        self._give_up.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_cancel, name="writer cancel watch")
            self._deliver(await self._run_sync(self._commit_batch, limiter=self._limiter))
            nursery.cancel_scope.cancel()

    async def _watch_cancel(self) -> None:
        """Tell the worker thread, which no cancel scope reaches, to stop waiting for its turn."""
        try:
            await trio.sleep_forever()
        finally:
            self._give_up.set()

    def _deliver(self, results: Sequence[tuple[_Queued[Any], outcome.Outcome[Any]]]) -> None:
        now = trio.current_time()
        for queued, result in results:
            trio.lowlevel.reschedule(queued.task, result)
        if not results:
            return
        stats = self.stats
        stats.batches += 1
        stats.units += len(results)
        if len(stats.sizes) < 10_000:
            stats.sizes.append(len(results))
            stats.waits += [now - queued.since for queued, _ in results]
        if any(isinstance(result, outcome.Value) for _, result in results):
            stats.blocked_since = now if self._queue else None
            committed, self.next_commit = self.next_commit, trio.Event()
            committed.set()

    def _refuse_rest(self) -> None:
        with self._lock:
            rest = list(self._queue)
            self._queue.clear()
        for queued in rest:
            trio.lowlevel.reschedule(
                queued.task, outcome.Error(StoreClosed("the database writer has stopped"))
            )

    # From here on: in the worker thread.

    def _commit_batch(self) -> list[tuple[_Queued[Any], outcome.Outcome[Any]]]:
        try:
            with self._connect(self._path) as conn:
                if not self._begin(conn, lambda: bool(self._queue)):
                    return []
                batch = self._take()
                results = _commit_together(conn, batch)
                if results is None:
                    results = [(queued, self._commit_alone(conn, queued)) for queued in batch]
                return list(results)
        except sqlite3.Error as error:
            # The database cannot be opened or written at all: everybody who waits hears of it.
            self.stats.last_error = str(error)
            return [(queued, outcome.Error(_copy(error))) for queued in self._take()]

    def _begin(self, conn: sqlite3.Connection, wanted: Callable[[], bool]) -> bool:
        """Get the write lock, while it is wanted; False when told to give up.

        Only with the lock is anything taken. Where all callers have been cancelled meanwhile
        nobody waits for it any more, and a stop does not either.
        """
        conn.execute("PRAGMA busy_timeout=0")
        while wanted() and not self._give_up.is_set():
            try:
                conn.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                self._give_up.wait(ASK_AGAIN)
            else:
                conn.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT}")
                return True
        return False

    def _take(self) -> list[_Queued[Any]]:
        with self._lock:
            return [self._queue.popleft() for _ in range(min(len(self._queue), MOST_UNITS))]

    def _commit_alone(self, conn: sqlite3.Connection, queued: _Queued[Any]) -> outcome.Outcome[Any]:
        if not self._begin(conn, lambda: True):
            return outcome.Error(StoreClosed("the database writer was stopped"))
        try:
            value = queued.unit(Connection(conn))
            conn.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the caller's own error, handed to the caller
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            return outcome.Error(error)
        return outcome.Value(_plain(value))


def _commit_together(
    conn: sqlite3.Connection, batch: Sequence[_Queued[Any]]
) -> list[tuple[_Queued[Any], outcome.Outcome[Any]]] | None:
    """Run a batch in the open transaction and commit it; None where the batch is void.

    Void: an error ended the whole transaction (a full disk, ON CONFLICT ROLLBACK) or COMMIT failed.
    Nothing of the batch is in the database then.
    """
    results: list[tuple[_Queued[Any], outcome.Outcome[Any]]] = []
    for queued in batch:
        conn.execute("SAVEPOINT unit")
        result: outcome.Outcome[Any]
        try:
            result = outcome.Value(_plain(queued.unit(Connection(conn))))
        except Exception as error:  # noqa: BLE001 - the caller's own error, handed to the caller
            if not conn.in_transaction:
                return None
            conn.execute("ROLLBACK TO unit")
            result = outcome.Error(error)
        if not conn.in_transaction:
            return None
        conn.execute("RELEASE unit")
        results.append((queued, result))
    try:
        conn.execute("COMMIT")
    except sqlite3.Error:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        return None
    return results


def _plain(value: T) -> T:
    """Return the value, refusing what would need the connection that is about to close."""
    if isinstance(value, sqlite3.Cursor | sqlite3.Row):
        raise TypeError("a unit of work returns plain values, not rows or cursors")
    return value


def _copy(error: sqlite3.Error) -> sqlite3.Error:
    """Return an equal error: one exception object must not be raised in several tasks."""
    fresh = type(error)(*error.args)
    for name in ("sqlite_errorcode", "sqlite_errorname"):
        if hasattr(error, name):
            setattr(fresh, name, getattr(error, name))
    return fresh
