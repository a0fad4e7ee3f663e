"""What specs say that the database has no column for, kept in memory by file.

The file is read again when it changed. A file that is gone or cannot be used is not in the catalog
(scheduling.md, rule 3: its task waits, with that reason).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from dispatch_controller.core.spec import SIZE_LIMIT, Spec, parse
from dispatch_controller.model import SpecExtras

Stamp = tuple[int, int, int]


class _Everything:
    def __contains__(self, _: object) -> bool:
        return True


class SpecCatalog:
    """Executor, verify and time limit of spec files. Its methods block: call them in a thread."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._lock = threading.Lock()
        self._stamps: dict[str, Stamp] = {}
        self._extras: dict[str, SpecExtras] = {}
        self._paths: dict[str, Path] = {}

    @property
    def extras(self) -> Mapping[str, SpecExtras]:
        """By `spec_file` as the row has it. Replaced, never changed, by `refresh`."""
        return self._extras

    def refresh(self, spec_files: Iterable[str]) -> None:
        """Read those of the files that are new or changed, and forget those that are gone."""
        with self._lock:
            extras = dict(self._extras)
            for spec_file in spec_files:
                self._refresh_one(spec_file, extras)
            self._extras = extras

    def text(self, spec_file: str) -> str:
        """Return a spec's text. Raises OSError."""
        return self._path(spec_file).read_bytes().decode("utf-8-sig", errors="replace")

    def folder(self, spec_file: str) -> Path:
        return self._path(spec_file).parent

    def _path(self, spec_file: str) -> Path:
        path = self._paths.get(spec_file)
        if path is None:
            path = self._paths[spec_file] = self._base / Path(spec_file).expanduser()
        return path

    def _refresh_one(self, spec_file: str, extras: dict[str, SpecExtras]) -> None:
        try:
            path = self._path(spec_file)
            status = path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if self._stamps.get(spec_file) == stamp:
                return
            content = path.read_bytes() if status.st_size <= SIZE_LIMIT else b""
        except (OSError, ValueError, RuntimeError):
            self._stamps.pop(spec_file, None)
            extras.pop(spec_file, None)
            return
        parsed = parse(spec_file, content, default_project="any", modifies_optional=_Everything())
        self._stamps[spec_file] = stamp
        if isinstance(parsed, Spec):
            extras[spec_file] = parsed.extras
        else:
            extras.pop(spec_file, None)
