from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.web.serving import Serving, serving

TOKEN = "correct-horse"


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Serving]:
    """A controller bound to loopback."""
    async with serving(tmp_path) as running:
        yield running


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Serving]:
    """A controller that other machines can reach, so that it wants a token."""
    async with serving(tmp_path, host="0.0.0.0", api_token=TOKEN) as running:
        yield running
