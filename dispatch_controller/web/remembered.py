"""Answers that many viewers ask for, computed once for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from dispatch_controller.store.store import Store

T = TypeVar("T")

UNCHANGED = 1.0
"""Seconds for which an answer is given again while this process writes nothing; others may."""
EFFORT = 4
"""A costly answer is given again for this many times as long as it took, whatever is written: a
quarter of one core at the most goes into it, however many ask."""
MOST_AGE = 5.0


class Remembered(Generic[T]):
    """One value read from the store, made anew when it is asked for and may have changed."""

    def __init__(
        self, store: Store, make: Callable[[], Awaitable[T]], *, costly: bool = False
    ) -> None:
        self._store = store
        self._make = make
        self._costly = costly
        self._lock = trio.Lock()
        self._value: T | None = None
        self._commit: trio.Event | None = None
        self._made_at = 0.0
        self._took = 0.0

    async def get(self) -> T:
        """Return the value. Raises what making it raises, and remembers nothing then."""
        async with self._lock:
            value = self._value
            if value is None or not self._good():
                commit, began = self._store.next_commit, trio.current_time()
                value = self._value = await self._make()
                self._commit, self._made_at = commit, trio.current_time()
                self._took = self._made_at - began
            return value

    @property
    def stale(self) -> bool:
        """Whether something was written since the value was made."""
        return self._commit is not self._store.next_commit

    def _good(self) -> bool:
        age = trio.current_time() - self._made_at
        if self._costly and age < min(MOST_AGE, EFFORT * self._took):
            return True
        return not self.stale and age < UNCHANGED
