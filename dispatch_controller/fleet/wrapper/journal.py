"""A file of words, one a line, that is only ever appended to: voided leases, acknowledgements.

Several processes append and read; each keeps the words in memory and reads on where the file grew.
"""

from __future__ import annotations

import os

from dispatch_controller.fleet.wrapper.taskdir import write_all


class Journal:
    """The set of lines of one file. `-word` takes `word` back."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._words: set[str] = set()
        self._read = 0

    def __contains__(self, word: str) -> bool:
        self._refresh()
        return word in self._words

    def add(self, words: list[str], *, durable: bool) -> None:
        """Append; `durable` syncs, so that a power cut cannot take it back. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(self.path, flags, 0o644)
        try:
            # A line cut off by a crash or a full disk is ended first, so it cannot spoil ours.
            write_all(fd, b"".join(b"\n" + word.encode() + b"\n" for word in words))
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        if durable:
            _sync_folder(os.path.dirname(self.path))

    def _refresh(self) -> None:
        try:
            size = os.stat(self.path).st_size
        except FileNotFoundError:
            return
        if size == self._read:
            return
        with open(self.path, "rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode(errors="replace").split("\n"):
            if line.startswith("-"):
                self._words.discard(line[1:])
            elif line:
                self._words.add(line)


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
