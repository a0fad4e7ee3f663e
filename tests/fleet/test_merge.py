"""Merging a task's branch, against real repositories."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from dispatch_controller.fleet.merge import MergeConflict, MergeFailed, Merger, Work
from dispatch_controller.fleet.ssh_settings import SshSettings

NAMES = ("-c", "user.name=x", "-c", "user.email=x@y")


class Origin:
    """A bare repository with a file on main."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "origin.git"
        self._work = folder / "work"
        _git("init", "-q", "--bare", "--initial-branch=main", str(self.path))
        _git("clone", "-q", str(self.path), str(self._work))
        self.push("main", {"a.txt": "1\n2\n3\n4\n5\n"}, start="")

    def push(self, branch: str, files: dict[str, str], start: str = "origin/main") -> None:
        """Commit files on top of `start` and push that to `branch`."""
        work = str(self._work)
        if start:
            _git("-C", work, "fetch", "-q")
            _git("-C", work, "checkout", "-q", "--detach", start)
        for name, content in files.items():
            (self._work / name).write_text(content)
        _git("-C", work, "add", "--all")
        _git("-C", work, *NAMES, "commit", "-q", "-m", f"for {branch}")
        _git("-C", work, "push", "-q", "origin", f"HEAD:refs/heads/{branch}")

    def show(self, name: str, ref: str = "main") -> str:
        return _git("--git-dir", str(self.path), "show", f"{ref}:{name}")

    def log(self) -> list[str]:
        """Return the subjects of main's first parents, newest first."""
        told = _git("--git-dir", str(self.path), "log", "--first-parent", "--format=%s", "main")
        return told.split("\n")[:-1]

    def work(self, branch: str) -> Work:
        return Work("p", str(self.path), "main", branch, f"Merge {branch}")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


async def ours() -> bool:
    return True


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    if shutil.which("git") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("needs git")
        pytest.skip("needs git")
    return Origin(tmp_path)


@pytest.fixture
def merger(tmp_path: Path) -> Merger:
    return Merger(tmp_path / "repos", SshSettings())


async def test_branches_with_different_changes_are_both_in_main(
    origin: Origin, merger: Merger
) -> None:
    origin.push("t1", {"b.txt": "b"})
    origin.push("t2", {"a.txt": "1\n2\n3\n4\nfive\n"})
    async with trio.open_nursery() as nursery:
        for branch in ("t1", "t2"):
            nursery.start_soon(merger.merge, origin.work(branch), ours)
    assert (origin.show("b.txt"), origin.show("a.txt")) == ("b", "1\n2\n3\n4\nfive\n")
    assert set(origin.log()) == {"Merge t1", "Merge t2", "for main"}


async def test_merging_again_changes_nothing(origin: Origin, merger: Merger) -> None:
    origin.push("t1", {"b.txt": "b"})
    assert await merger.merge(origin.work("t1"), ours)
    before = origin.log()
    assert await merger.merge(origin.work("t1"), ours)
    assert origin.log() == before == ["Merge t1", "for main"]


async def test_a_conflict_is_told_in_gits_words_and_changes_nothing(
    origin: Origin, merger: Merger
) -> None:
    origin.push("t1", {"a.txt": "one\n"})
    origin.push("t2", {"a.txt": "eins\n"})
    await merger.merge(origin.work("t1"), ours)
    with pytest.raises(MergeConflict, match=r"(?s)a\.txt.*CONFLICT \(content\)"):
        await merger.merge(origin.work("t2"), ours)
    assert origin.show("a.txt") == "one\n"


async def test_nothing_is_pushed_once_the_lease_is_lost(origin: Origin, merger: Merger) -> None:
    origin.push("t1", {"b.txt": "b"})

    async def lost() -> bool:
        return False

    assert not await merger.merge(origin.work("t1"), lost)
    assert origin.log() == ["for main"]


async def test_whoever_pushes_meanwhile_is_kept(origin: Origin, merger: Merger) -> None:
    origin.push("t1", {"b.txt": "b"})
    asked: list[int] = []

    async def somebody_pushes_first() -> bool:
        if not asked:
            origin.push("main", {"c.txt": "c"})
        asked.append(1)
        return True

    assert await merger.merge(origin.work("t1"), somebody_pushes_first)
    assert len(asked) == 2
    assert (origin.show("b.txt"), origin.show("c.txt")) == ("b", "c")


async def test_what_cannot_be_reached_is_said(origin: Origin, merger: Merger) -> None:
    with pytest.raises(MergeFailed, match="never-pushed"):
        await merger.merge(origin.work("never-pushed"), ours)
    work = Work("q", "/nowhere/at/all.git", "main", "t1", "m")
    with pytest.raises(MergeFailed, match="/nowhere/at/all"):
        await merger.merge(work, ours)


async def test_a_push_that_the_remote_forbids_is_no_reason_to_try_again(
    origin: Origin, merger: Merger
) -> None:
    origin.push("t1", {"b.txt": "b"})
    hook = origin.path / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho main is protected >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(MergeFailed, match="main is protected"):
        await merger.merge(origin.work("t1"), ours)
