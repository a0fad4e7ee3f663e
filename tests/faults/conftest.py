"""Fixtures of the faults: those of the end-to-end tests."""

from __future__ import annotations

from tests.e2e.conftest import controller_on
from tests.sshd import ssh_fleet

__all__ = ["controller_on", "ssh_fleet"]
