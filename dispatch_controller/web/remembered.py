"""Answers that many viewers ask for, computed once for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")

LEAST_AGE = 0.2
MOST_AGE = 5.0
EFFORT = 4
"""An answer is given again for this many times as long as it took: a quarter of one core, at the
most, goes into it however many ask."""


class Remembered(Generic[T]):
    """One value, made anew when it is asked for and the one there is has become too old."""

    def __init__(self, make: Callable[[], Awaitable[T]], least_age: float = LEAST_AGE) -> None:
        self._make = make
        self._least_age = least_age
        self._lock = trio.Lock()
        self._value: T | None = None
        self._good_until = -1.0

    async def get(self) -> T:
        """Return the value. Raises what making it raises, and remembers nothing then."""
        async with self._lock:
            began = trio.current_time()
            if self._value is None or began >= self._good_until:
                self._value = await self._make()
                ended = trio.current_time()
                age = max(self._least_age, min(MOST_AGE, EFFORT * (ended - began)))
                self._good_until = ended + age
            return self._value
