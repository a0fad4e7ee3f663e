"""A stream of bytes as lines."""

from __future__ import annotations


class LineSplitter:
    """Takes chunks, returns the lines that they complete."""

    def __init__(self, limit: int = 32 * 1024 * 1024) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines completed by `data`, without newlines.

        Raises ValueError when a line grows beyond the limit: what sends such a line is broken.
        """
        head, newline, rest = data.partition(b"\n")
        self._parts.append(head)
        self._size += len(head)
        if self._size > self._limit:
            raise ValueError(f"a line is longer than {self._limit} bytes")
        if not newline:
            return []
        first = b"".join(self._parts)
        *lines, tail = rest.split(b"\n")
        self._parts, self._size = [tail], len(tail)
        return [first, *lines]
