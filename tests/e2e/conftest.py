"""Fixtures of the end-to-end tests: the real program over real OpenSSH servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.controller import Controller
from tests.sshd import SshFleet, require_sshd, ssh_fleet

__all__ = ["ssh_fleet"]

Starter = Callable[[Path], Controller]


@pytest.fixture(scope="module")
def shared_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshFleet]:
    """A fleet for all tests of a file."""
    require_sshd()
    fleet = SshFleet(tmp_path_factory.mktemp("ssh"))
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def controller_on(ssh_fleet: SshFleet) -> Iterator[Starter]:
    """Return a function that makes a controller for a home (not started yet).

    It is ended before the servers of its nodes are.
    """
    with ExitStack() as running:

        def make(home: Path) -> Controller:
            controller = Controller(home)
            running.callback(controller.close)
            return controller

        yield make
