"""`worker`: what it refuses before it does anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.controller import eventually, run
from tests.e2e.worker import WorkerProcess

WORKER = ("worker", "--controller", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("worker", "--controller", "mini:8080", "--node", "n"), 2, "write http://HOST:PORT"),
        (("worker", "--controller", "http://u:p@mini", "--node", "n"), 2, "write http://"),
        ((*WORKER, "--node", "../n"), 2, "cannot be the name of a node"),
        ((*WORKER, "--node", "n", "--listen", "0.0.0.0:8081"), 2, "--token-file"),
        ((*WORKER, "--node", "n", "--listen", "8081"), 2, "write HOST:PORT"),
        ((*WORKER, "--node", "n", "--token-file", "/nowhere"), 78, "/nowhere"),
    ],
)
def test_what_cannot_be_is_said_at_once(
    tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = run(*arguments, "--work-dir", str(tmp_path / "work"))
    assert (done.returncode, done.stdout) == (code, "")
    assert says in " ".join(done.stderr.split())
    assert not (tmp_path / "work").exists()


def test_two_workers_never_share_a_node_and_a_folder(tmp_path: Path) -> None:
    first = WorkerProcess("n", tmp_path, arguments=("--listen", "127.0.0.1:0"))
    first.start("http://127.0.0.1:9")
    try:
        eventually(lambda: "serving" in first.said(), 20, first.said)
        second = run(*WORKER, "--node", "n", "--work-dir", str(first.work_dir))
        assert second.returncode == 75
        assert "another worker (pid " in second.stderr
        assert first.stop() == 0
    finally:
        first.close()
