from __future__ import annotations

from pathlib import Path

import pytest

from dispatch_controller.store.schema import prepare
from tests.loops.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An empty home on the mock clock."""
    prepare(tmp_path / "dispatch.db")
    return World(tmp_path)
