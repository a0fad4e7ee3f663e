"""Packing a project's folder, and bringing it to nodes."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from dispatch_controller.fleet.code import CodeCourier
from dispatch_controller.fleet.local import LocalMachine
from dispatch_controller.fleet.packing import CodeUnfit, fingerprint, pack
from dispatch_controller.fleet.ssh import SshMachine, SshService
from dispatch_controller.fleet.transport import Completed, TransportLost
from dispatch_controller.runtime.threads import in_thread
from tests.sshd import SshFleet


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    (project / "src" / "deep").mkdir(parents=True)
    (project / "src" / "deep" / "a.py").write_text("a = 1\n")
    (project / "run.sh").write_text("#!/bin/sh\n")
    (project / "run.sh").chmod(0o755)
    (project / "empty").mkdir()
    for hidden in (".git", "node_modules", ".venv", "__pycache__"):
        (project / "src" / hidden).mkdir()
        (project / "src" / hidden / "x").write_text("no")
    (project / "inside").symlink_to("src/deep/a.py")
    (project / "outside").symlink_to("../secret")
    (project / "absolute").symlink_to("/etc/passwd")
    (project / "sneaky").symlink_to("src/../../secret")
    (tmp_path / "secret").write_text("secret")
    os.mkfifo(project / "fifo")
    return project


def _names(content: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {info.name: info for info in archive.getmembers()}


def test_packs_what_belongs_to_the_project_and_nothing_that_leads_out(project: Path) -> None:
    found = _names(pack(project).content)
    assert sorted(found) == [
        *("empty", "inside", "run.sh", "src", "src/deep", "src/deep/a.py"),
    ]
    assert found["run.sh"].mode == 0o755
    assert found["inside"].linkname == "src/deep/a.py"


def test_same_content_packs_the_same_whenever_and_whoever(project: Path, tmp_path: Path) -> None:
    first = pack(project)
    os.utime(project / "run.sh", (1, 1))
    (project / "src" / "deep" / "a.py").chmod(0o600)
    assert pack(project) == first
    (project / "run.sh").write_text("#!/bin/bash\n")
    assert pack(project).sha256 != first.sha256


def test_fingerprint_sees_changes_without_reading(project: Path) -> None:
    before = fingerprint(project)
    assert fingerprint(project) == before
    (project / "new.txt").write_text("x")
    assert fingerprint(project) != before


def test_folder_that_is_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(CodeUnfit, match="repo_local"):
        pack(tmp_path / "nowhere")


class Watched(LocalMachine):
    """Counts transfers; loses the first `losses` of them half-way."""

    def __init__(self, losses: int = 0) -> None:
        super().__init__("n")
        self.losses = losses
        self.transfers = 0

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Completed:
        if stdin:
            self.transfers += 1
            if self.transfers <= self.losses:
                await super().run(argv, stdin=stdin[:100], timeout=timeout)
                raise TransportLost(self.node, "lost")
        return await super().run(argv, stdin=stdin, timeout=timeout)


async def test_brings_code_once_however_many_ask(project: Path, tmp_path: Path) -> None:
    machine, root = Watched(), tmp_path / "a root"
    courier = CodeCourier(in_thread)
    names: list[str] = []

    async def bring() -> None:
        names.append(await courier.bring(machine, str(root), "p", project))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(bring)
    (name,) = set(names)
    assert machine.transfers == 1
    assert (root / "p" / name / "src" / "deep" / "a.py").read_text() == "a = 1\n"
    assert [path.name for path in (root / "p").iterdir()] == [name]
    again = CodeCourier(in_thread)  # another process: what is there is found
    assert await again.bring(machine, str(root), "p", project) == name
    assert machine.transfers == 1


async def test_changed_code_goes_beside_the_old(project: Path, tmp_path: Path) -> None:
    machine, root = Watched(), tmp_path / "root"
    courier = CodeCourier(in_thread)
    first = await courier.bring(machine, str(root), "p", project)
    (project / "src" / "b.py").write_text("b = 2\n")
    second = await courier.bring(machine, str(root), "p", project)
    assert first != second
    assert (root / "p" / first / "run.sh").exists()
    assert not (root / "p" / first / "src" / "b.py").exists()
    assert (root / "p" / second / "src" / "b.py").exists()


async def test_third_try_counts_and_half_a_transfer_is_never_seen(
    project: Path, tmp_path: Path
) -> None:
    machine, root = Watched(losses=2), tmp_path / "root"
    name = await CodeCourier(in_thread).bring(machine, str(root), "p", project)
    assert machine.transfers == 3
    assert [path.name for path in (root / "p").iterdir()] == [name]


async def test_fourth_try_is_not_made(project: Path, tmp_path: Path) -> None:
    machine, root = Watched(losses=3), tmp_path / "root"
    with pytest.raises(TransportLost):
        await CodeCourier(in_thread).bring(machine, str(root), "p", project)
    assert machine.transfers == 3
    assert list((root / "p").iterdir()) == []


async def test_brings_code_over_ssh(
    project: Path, ssh_fleet: SshFleet, ssh_service: SshService
) -> None:
    node = ssh_fleet.add("alpha")
    (project / "big.bin").write_bytes(os.urandom(5_000_000))
    machine = SshMachine(ssh_service, "alpha", "alpha")
    name = await CodeCourier(in_thread).bring(machine, "~/dispatch", "p", project)
    there = node.home / "dispatch" / "p" / name
    assert (there / "big.bin").read_bytes() == (project / "big.bin").read_bytes()
