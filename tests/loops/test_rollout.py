"""What is known of wrapper releases survives a restart, and bad files."""

from __future__ import annotations

from pathlib import Path

from conftest import run_inline
from dispatch_controller.fleet.bundle import Bundle
from dispatch_controller.loops.rollout import Releases


def bundle(content: bytes, folder: Path) -> Bundle:
    path = folder / "content"
    path.write_bytes(content)
    return Bundle.read(path)


class Told(list[tuple[str, str | None]]):
    def __call__(self, default: Bundle, canary: str | None, candidate: Bundle | None) -> None:
        self.append((default.content.decode(), canary))


def load(folder: Path, content: bytes, tmp_path: Path) -> tuple[Releases, Told]:
    told = Told()
    releases = Releases.load(folder, bundle(content, tmp_path), told, run_inline)
    releases.apply()
    return releases, told


async def test_a_release_is_tried_kept_and_remembered(tmp_path: Path) -> None:
    folder = tmp_path / "wrapper"
    first, told = load(folder, b"old", tmp_path)
    assert told == [("old", None)]
    await first.task_done(first.current.sha256)

    second, told = load(folder, b"new", tmp_path)
    second.choose(["b", "a"])
    assert told == [("old", None), ("old", "a")]
    await second.task_done(second.current.sha256)
    assert told[-1] == ("new", None)

    _, told = load(folder, b"new", tmp_path)
    assert told == [("new", None)]
    assert len(list(folder.glob("*.pyz"))) == 1


async def test_a_release_that_was_taken_back_is_not_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "wrapper"
    first, _ = load(folder, b"old", tmp_path)
    await first.task_done(first.current.sha256)
    second, told = load(folder, b"new", tmp_path)
    second.choose(["a"])
    await second.start_failed("a")
    await second.start_failed("a")
    assert told[-1] == ("old", None)
    third, told = load(folder, b"new", tmp_path)
    third.choose(["a"])
    assert told == [("old", None)]


async def test_an_unreadable_state_is_a_first_start(tmp_path: Path) -> None:
    folder = tmp_path / "wrapper"
    folder.mkdir()
    (folder / "state.json").write_text("{")
    _, told = load(folder, b"new", tmp_path)
    assert told == [("new", None)]
