"""A node for each test; whatever a test left running on it is ended by its lease."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatch_controller.fleet.bundle import build
from tests.wrapper.serving import Node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    wrapper = tmp_path / build().name
    wrapper.write_bytes(build().content)
    python = os.environ.get("WRAPPER_PYTHON", sys.executable)  # nodes may have an older one
    yield Node(tmp_path / "root", wrapper, python)
    _end_all_under(str(tmp_path))


@pytest.fixture
def git() -> str:
    """Path of git, which CI must have."""
    found = shutil.which("git")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("git is not installed")
        pytest.skip("git is not installed")
    return found


def _end_all_under(root: str) -> None:
    """End what was started by this test's node: TASK_DIR names its folder, which is unique."""
    mark = b"TASK_DIR=" + root.encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue
