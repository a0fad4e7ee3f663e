"""A disk that fills up while a task runs: its end is written all the same."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wrapper.serving import Node


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB; needs the right to mount one."""
    place = tmp_path / "small"
    place.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_the_final_status_is_written_on_a_full_disk(node: Node, small: Path) -> None:
    node.root = small
    with node.serve() as serve:
        serve.start(node.order("cat /dev/zero > $OUTPUT_DIR/x; cat /dev/zero > y; exit 1"))
        status = serve.end()
        assert (status["status"], status["reason"]) == ("failed", "exit")
        refused = serve.start(node.order("true", folder="t2"))
        assert refused["reason"] == "disk_full"
        assert serve.ask("collect")["tasks"][0]["status"]["status"] == "failed"
        assert serve.ask("ping") == {}
