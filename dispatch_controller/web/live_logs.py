"""Logs followed live: one reader of the node per log, however many watch it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from dispatch_controller.loops.operator import Operator
from dispatch_controller.model import LogChunk

PIECE = 64 * 1024
"""Bytes of a log read at once."""
OFTEN = 1.0
"""Seconds between two looks at a log that does not grow."""
KEPT = 32
"""Pieces of a log that watchers share."""


@dataclass(slots=True)
class Tail:
    """The newest pieces of one log, by the offset they begin at."""

    watchers: int = 0
    pieces: dict[int, LogChunk] = field(default_factory=dict)
    nothing_at: tuple[int, float] | None = None
    """(offset, Trio's time) of the last look that found nothing new."""
    lock: trio.Lock = field(default_factory=trio.Lock)


def end_of(piece: LogChunk) -> int:
    """Return the offset after a piece."""
    # What was no UTF-8 came as something longer: never step past the end for it.
    return min(piece.offset + len(piece.text.encode("utf-8", "surrogateescape")), piece.size)


class LiveLogs:
    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._tails: dict[str, Tail] = {}

    @contextmanager
    def watch(self, task_id: str) -> Iterator[Tail]:
        """Share the task's log with all who watch it; what was kept goes with the last one."""
        tail = self._tails.setdefault(task_id, Tail())
        tail.watchers += 1
        try:
            yield tail
        finally:
            tail.watchers -= 1
            if not tail.watchers:
                self._tails.pop(task_id, None)

    async def after(self, tail: Tail, task_id: str, offset: int) -> LogChunk:
        """Return the piece at `offset`: with text, or empty after a look that found nothing.

        A piece whose `size` is below `offset` says that the log began anew. Raises what
        Operator.read_log raises.
        """
        async with tail.lock:
            known = tail.pieces.get(offset)
            if known is not None:
                return known
            if tail.nothing_at is not None and tail.nothing_at[0] == offset:
                await trio.sleep(max(0.0, tail.nothing_at[1] + OFTEN - trio.current_time()))
                known = tail.pieces.get(offset)
            piece = known or await self._operator.read_log(task_id, offset, PIECE)
            if piece.size < offset:
                tail.pieces.clear()
            elif piece.text:
                tail.pieces[offset] = piece
                if len(tail.pieces) > KEPT:
                    del tail.pieces[next(iter(tail.pieces))]
            else:
                tail.nothing_at = (offset, trio.current_time())
            return piece
