"""Finds spec files under paths and reads them: the I/O beside `core/spec.py`.

All of it blocks: callers run it through their RunSync.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dispatch_controller.core.plan import SpecWarning
from dispatch_controller.core.spec import (
    SIZE_LIMIT,
    Document,
    Parsed,
    Spec,
    SpecError,
    parse,
    too_large,
)

Stamp = tuple[int, int, int, int]
Known = dict[tuple[str, str | None, str], tuple[Stamp, Parsed]]
"""What was read of (root, project, file) before, and the file's stamp then."""

_HEAD = 1024
_LINK = "is a link and was passed over; give the place it leads to as a path of its own"


@dataclass
class Found:
    """What lies under the paths, in sorted order. Files without a fault of their own are read."""

    specs: list[Spec] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    errors: list[SpecError] = field(default_factory=list)
    warnings: list[SpecWarning] = field(default_factory=list)
    """Of documents and links; those of a spec are reported by its plan."""


def find(
    paths: Iterable[str | os.PathLike[str]],
    project: str | None = None,
    *,
    modifies_optional: Container[str] = frozenset(),
    known: Known | None = None,
) -> Found:
    """Read every `*.md` under the paths: folders at any depth, or single files.

    Hidden files and folders and links are passed over (a path that is itself given may be one).
    A path that does not exist is empty. The project is `project`, else the front matter's, else
    the first folder below the path, else the path's own name (a single file's: its folder's). A
    file reached by two paths is read once, for the first. What cannot be read is an error entry
    for that file or folder; nothing is raised.

    A file whose stamp is still that in `known` is not read again; what is read is noted there.
    It belongs to one set of `modifies_optional`.
    """
    found = Found()
    seen: set[str] = set()
    for path in paths:
        root = os.path.realpath(path)
        for file, stamp in _markdown_files(root, found):
            if file in seen:
                continue
            seen.add(file)
            before = known.get((root, project, file)) if known else None
            if before is not None and before[0] == stamp:
                _sort_in(before[1], found)
                continue
            parsed = _read(file, project, _default_project(root, file), modifies_optional)
            if known is not None and stamp is not None and not isinstance(parsed, SpecError):
                known[root, project, file] = (stamp, parsed)
            _sort_in(parsed, found)
    found.errors.sort(key=lambda error: (error.file, error.line))
    found.warnings.sort(key=lambda warning: warning.file)
    return found


def locate(
    spec_files: Iterable[str], *, base: Path, found: Container[str] = frozenset()
) -> dict[str, str]:
    """Return where the files of task rows are: for each that exists, its real path.

    Those in `found` are real paths that were just met, and are not looked at again.

    A relative one is looked for under `base`, `~` is the home folder. A file that only cannot
    be looked at (no permission, a network folder that fails) counts as there: unknown is not
    gone.
    """
    located: dict[str, str] = {}
    for spec_file in set(spec_files):
        if spec_file in found:
            located[spec_file] = spec_file
            continue
        try:
            path = base / Path(spec_file).expanduser()
            if not stat.S_ISREG(path.stat().st_mode):
                continue
        except (FileNotFoundError, NotADirectoryError, ValueError, RuntimeError):
            continue  # RuntimeError: the home folder of a user who does not exist.
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
                continue
        located[spec_file] = os.path.realpath(path)
    return located


def _markdown_files(root: str, found: Found) -> Iterator[tuple[str, Stamp | None]]:
    """Yield the files below a real path, each folder's own files first, in order of name.

    Each with its stamp, which changes when its content does; None for a single file.
    """
    try:
        is_folder = stat.S_ISDIR(Path(root).stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        found.errors.append(_unreadable(root, error))
        return
    if not is_folder:
        yield root, None
        return
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except FileNotFoundError:
            continue  # Removed since its parent was listed.
        except OSError as error:
            found.errors.append(_unreadable(folder, error))
            continue
        visible = [entry for entry in entries if not entry.name.startswith(".")]
        yield from _files_of(visible, found)
        waiting += [e.path for e in reversed(visible) if e.is_dir(follow_symlinks=False)]


def _files_of(
    entries: Sequence[os.DirEntry[str]], found: Found
) -> Iterator[tuple[str, Stamp | None]]:
    for entry in entries:
        if entry.is_symlink():
            if entry.name.endswith(".md") or entry.is_dir():
                found.warnings.append(SpecWarning(_shown(entry.path), _LINK))
        elif entry.name.endswith(".md") and not entry.is_dir():
            yield entry.path, _stamp(entry)


def _stamp(entry: os.DirEntry[str]) -> Stamp | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return None  # Reading it tells what is wrong.
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _default_project(root: str, file: str) -> str:
    """Return the first folder below the path, else the path's own name."""
    if file == root:
        return Path(file).parent.name
    first, *rest = Path(file).relative_to(root).parts
    return first if rest else Path(root).name


def _read(
    file: str, project: str | None, default_project: str, modifies_optional: Container[str]
) -> Parsed:
    if file != _shown(file):
        return SpecError(_shown(file), 1, "the file's name is not UTF-8; rename it")
    try:
        # Not blocking, so that a pipe named like a spec cannot hold up the rest.
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return SpecError(file, 1, "is not a regular file")
            if status.st_size > SIZE_LIMIT:
                return too_large(file, status.st_size, stream.read(_HEAD))
            content = stream.read(SIZE_LIMIT + 1)
    except OSError as error:
        return _unreadable(file, error)
    return parse(
        file,
        content,
        project=project,
        default_project=default_project,
        modifies_optional=modifies_optional,
    )


def _sort_in(parsed: Parsed, found: Found) -> None:
    match parsed:
        case Spec():
            found.specs.append(parsed)
        case Document():
            found.documents.append(parsed)
            found.warnings += [SpecWarning(parsed.path, reason) for reason in parsed.warnings]
        case SpecError():
            found.errors.append(parsed)


def _unreadable(path: str, error: OSError) -> SpecError:
    return SpecError(_shown(path), 1, f"cannot be read: {error.strerror or error}")


def _shown(path: str) -> str:
    """Return a path that every encoder takes: bytes that are not UTF-8 escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
