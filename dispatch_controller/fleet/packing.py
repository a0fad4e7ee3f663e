"""A project's folder as one archive, the same to the byte whoever packs it. Blocking."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LEFT_OUT = frozenset({".git", "node_modules", ".venv", "__pycache__"})
LIMIT = 512 * 1024 * 1024


class CodeUnfit(Exception):
    """The project's folder cannot be sent; the text says why."""


@dataclass(frozen=True, slots=True)
class Packed:
    content: bytes
    """A gzipped tar."""
    sha256: str
    """Of what is in it, not of the compressed bytes (compressors differ)."""

    @property
    def name(self) -> str:
        """The folder it is unpacked into on a node."""
        return f"code-{self.sha256[:12]}"


def fingerprint(folder: Path) -> str:
    """Return a cheap sign of the folder's state: names, kinds, sizes and times of its files.

    Raises CodeUnfit.
    """
    digest = hashlib.sha256()
    try:
        for path, name in _entries(folder):
            found = path.lstat()
            sign = (name, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ino)
            digest.update(repr(sign).encode(errors="surrogateescape"))
    except OSError as error:
        raise CodeUnfit(f"{folder} cannot be read: {error}") from error
    return digest.hexdigest()


def pack(folder: Path) -> Packed:
    """Pack what is in `folder`. Raises CodeUnfit.

    Left out: .git, node_modules, .venv, __pycache__, links that lead out of the folder, and what
    is neither file, folder nor link. Owners and times are not kept; of the mode, whether a file
    can be executed.
    """
    if not folder.is_dir():
        raise CodeUnfit(f"{folder} is not a folder (repo_local of the project)")
    plain = io.BytesIO()
    size = 0
    try:
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path, name in _entries(folder):
                info = _describe(path, name)
                size += info.size
                if size > LIMIT:
                    raise CodeUnfit(
                        f"{folder} holds more than {LIMIT >> 20} MiB; use sync_mode git, or move "
                        "what agents do not need out of it"
                    )
                if info.isreg():
                    _add_file(archive, info, path)
                else:
                    archive.addfile(info)
    except OSError as error:
        raise CodeUnfit(f"{folder} cannot be packed: {error}") from error
    content = plain.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    return Packed(gzip.compress(content, compresslevel=6, mtime=0), sha256)


def _entries(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield (path, name in the archive) of everything that is sent, sorted."""
    inside = os.path.realpath(folder)
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        here = Path(place)
        for name in sorted([*folders, *files]):
            path = here / name
            mode = path.lstat().st_mode
            if name in LEFT_OUT or not (
                stat.S_ISREG(mode) or stat.S_ISDIR(mode) or _stays(path, mode, inside)
            ):
                continue
            yield path, path.relative_to(folder).as_posix()


def _stays(path: Path, mode: int, inside: str) -> bool:
    """Whether a link is relative and leads to something in the folder."""
    if not stat.S_ISLNK(mode) or path.readlink().is_absolute():
        return False
    target = os.path.realpath(path)
    return target == inside or target.startswith(inside + os.sep)


def _describe(path: Path, name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
    elif stat.S_ISDIR(found.st_mode):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    else:
        info.mode = 0o755 if found.st_mode & stat.S_IXUSR else 0o644
        info.size = found.st_size
    return info


def _add_file(archive: tarfile.TarFile, info: tarfile.TarInfo, path: Path) -> None:
    content = path.read_bytes()
    info.size = len(content)  # it may have grown since
    archive.addfile(info, io.BytesIO(content))
