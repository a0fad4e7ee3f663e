"""Nothing an agent made is lost: saved before it is ended, retried or cleaned."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper.git import GitFailed
from dispatch_controller.fleet.wrapper.measure import walk

if TYPE_CHECKING:
    from dispatch_controller.fleet.wrapper.git import Repo
    from dispatch_controller.fleet.wrapper.layout import Layout
    from dispatch_controller.fleet.wrapper.measure import Changes

_FREE = 64 << 20


class Salvaged:
    """Where it is: `ref` a branch of the origin, or `path` below the work_dir."""

    def __init__(self, *, ref: str | None = None, path: str | None = None, size: int = 0) -> None:
        self.ref = ref
        self.path = path
        self.size = size

    @property
    def where(self) -> str | None:
        return self.ref or self.path


def branch_name(project: str, folder: str, attempt: object) -> str:
    """`salvage/<project>-<folder>-<attempt>`, in characters that git takes for a branch."""
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in f"{project}-{folder}-{attempt}")
    while ".." in name:
        name = name.replace("..", ".-")
    if name.endswith((".", ".lock")):
        name += "-"
    return "salvage/" + name


class Number:
    """Which attempt it is. Attempts restart at 1 with the operator's retry, sequences do not."""

    def __init__(self, attempt: object, sequence: object) -> None:
        self.attempt = attempt
        self._sequence = sequence

    def again(self, branch: str) -> str | None:
        """Another name for a branch of this attempt, where the first one is taken."""
        return None if self._sequence is None else f"{branch}-s{self._sequence}"

    def __str__(self) -> str:
        return f"{self.attempt}" if self._sequence is None else f"{self.attempt}-s{self._sequence}"


def save_repo(layout: Layout, project: str, folder: str, number: Number, repo: Repo) -> Salvaged:
    """Commit and push what is in the clone; a patch where the push fails. Raises GitFailed."""
    branch = branch_name(project, folder, number.attempt)
    commit = repo.snapshot(f"Salvage {project}/{folder}, attempt {number.attempt}")
    try:
        branch = repo.push_snapshot(commit, branch, number.again(branch))
    except GitFailed:
        path = _place(layout, project, f"{folder}-{number}.patch")
        repo.patch(commit, path + ".new")
        return _finish(layout, path)
    return Salvaged(ref=branch)


def save_files(
    layout: Layout, project: str, folder: str, number: Number, changes: Changes
) -> Salvaged:
    """Pack changed files: code as `code/…`, output as `output/…`. Raises OSError."""
    files = {
        (name if name.startswith("output/") else "code/" + name): path
        for name, path in changes.files.items()
    }
    return _pack(layout, project, f"{folder}-{number}.tar.gz", files)


def save_folder(
    layout: Layout, project: str, folder: str, number: Number, *, logs: bool = False
) -> Salvaged:
    """Pack a task's output/ and the files of its repo/; with its `logs` before all of it goes."""
    task = layout.task(project, folder)
    files = {
        f"{part}/{os.path.relpath(path, f'{task}/{part}')}": path
        for part in ("output", "repo")
        for path, _ in walk(f"{task}/{part}")
    }
    if logs:
        names = [name for name in os.listdir(task) if name.endswith(".log")]
        files |= {f"logs/{name}": f"{task}/{name}" for name in names}
    if not files:
        return Salvaged()
    return _pack(layout, project, f"{folder}-{number}-folder.tar.gz", files)


def unpack(archive: str, code: str, output: str) -> None:
    """Bring an archive's files back. Regular files only, and none outside the two folders.

    Raises OSError, also where it is no archive.
    """
    import tarfile

    places = {"code": code, "output": output, "repo": code}
    try:
        _unpack(archive, places)
    except tarfile.TarError as e:
        raise OSError(f"{archive}: {e}") from e


def _unpack(archive: str, places: dict[str, str]) -> None:
    import shutil
    import tarfile

    with tarfile.open(archive) as tar:
        for member in tar:
            first, _, rest = member.name.partition("/")
            parts = rest.split("/")
            if not member.isfile() or first not in places or {"..", ""} & set(parts):
                continue
            target = os.path.join(places[first], rest)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if os.path.lexists(target):
                os.unlink(target)
            source = tar.extractfile(member)
            if source is not None:
                with source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file)
                os.chmod(target, member.mode & 0o755 | 0o600)


def _pack(layout: Layout, project: str, name: str, files: dict[str, str]) -> Salvaged:
    import tarfile

    path = _place(layout, project, name)
    _check_room(path, files)
    try:
        with tarfile.open(path + ".new", "w:gz", compresslevel=3) as tar:
            for inside, source in sorted(files.items()):
                try:
                    tar.add(source, inside, recursive=False)
                except FileNotFoundError:
                    continue  # a living agent removed it meanwhile
    except OSError:
        os.unlink(path + ".new")
        raise
    return _finish(layout, path)


def _check_room(path: str, files: dict[str, str]) -> None:
    size = sum(os.lstat(f).st_size for f in files.values() if os.path.lexists(f))
    disk = os.statvfs(os.path.dirname(path))
    if disk.f_bavail * disk.f_frsize < size + _FREE:
        raise OSError(f"{path}: {size} bytes to save, too little room on the disk")


def _place(layout: Layout, project: str, name: str) -> str:
    folder = layout.project(project) + "/salvage"
    os.makedirs(folder, exist_ok=True)
    return f"{folder}/{name}"


def _finish(layout: Layout, path: str) -> Salvaged:
    fd = os.open(path + ".new", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
        size = os.fstat(fd).st_size
    finally:
        os.close(fd)
    os.rename(path + ".new", path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return Salvaged(path=os.path.relpath(path, layout.root), size=size)
