from __future__ import annotations

import pytest
import trio

from dispatch_controller.fleet.ssh import SshService
from dispatch_controller.runtime.threads import in_thread
from tests.sshd import SshFleet, ssh_fleet

__all__ = ["ssh_fleet", "ssh_service"]


@pytest.fixture
async def ssh_service(ssh_fleet: SshFleet, nursery: trio.Nursery) -> SshService:
    """The SSH service, running, with the settings of the test's fleet."""
    service = SshService(ssh_fleet.settings, in_thread)
    await nursery.start(service.run)
    return service
