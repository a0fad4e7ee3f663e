"""The fleet follows the table of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from dispatch_controller.fleet.bundle import build
from dispatch_controller.fleet.polled import PolledTransport
from dispatch_controller.fleet.registry import Fleet, work_root
from dispatch_controller.fleet.serve import ServeTransport
from dispatch_controller.fleet.ssh import SshMachine, SshService, SshSettings
from dispatch_controller.fleet.transport import NodeUnfit, TransportLost
from dispatch_controller.model import Node, Observation
from dispatch_controller.runtime.clock import SystemClock
from dispatch_controller.runtime.threads import in_thread
from tests.sshd import SshFleet


def a_node(name: str, work_dir: Path | str, ssh_host: str | None = None) -> Node:
    return Node(
        name=name,
        ssh_host=ssh_host,
        slots=4,
        api_mode="direct",
        work_dir=str(work_dir),
        running_count=0,
        last_seen=None,
        enabled=True,
        executor="shell",
        priority=2,
    )


def _ignore(node: str, news: Sequence[Observation]) -> None:
    """Nobody listens."""


def a_fleet(ssh: SshService | None = None, task_wrapper: str | None = None) -> Fleet:
    service = ssh or SshService(SshSettings(), in_thread)
    return Fleet(service, "0123456789abcdef", build(), _ignore, SystemClock(), task_wrapper)


async def test_knows_the_nodes_of_the_last_update(tmp_path: Path, nursery: trio.Nursery) -> None:
    fleet = a_fleet()
    one, two = a_node("one", tmp_path / "1"), a_node("two", tmp_path / "2")
    fleet.update([one])
    await nursery.start(fleet.run)
    fleet.update([one, two])
    for node in (one, two):
        transport = fleet.transport(node.name)
        assert isinstance(transport, ServeTransport)
        assert (await transport.collect()).node == node.name
    fleet.update([two])
    assert fleet.transport(one.name) is None
    assert fleet.transport(two.name) is transport


async def test_node_that_moved_is_rebuilt_and_others_stay(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    fleet = a_fleet()
    await nursery.start(fleet.run)
    one, two = a_node("one", tmp_path / "1"), a_node("two", tmp_path / "2")
    fleet.update([one, two])
    before = fleet.transport(one.name)
    stays = fleet.transport(two.name)
    assert before is not None
    await before.collect()
    fleet.update([replace(one, slots=9, enabled=False), two])
    assert fleet.transport(one.name) is before
    fleet.update([replace(one, work_dir=str(tmp_path / "3")), two])
    after = fleet.transport(one.name)
    assert after is not None
    assert after is not before
    await after.collect()
    assert fleet.transport(two.name) is stays
    with trio.fail_after(5), pytest.raises(TransportLost):
        while True:
            await before.collect()


async def test_bad_ssh_host_spoils_only_its_own_node(
    tmp_path: Path, nursery: trio.Nursery, ssh_fleet: SshFleet
) -> None:
    service = SshService(ssh_fleet.settings, in_thread)
    await nursery.start(service.run)
    fleet = a_fleet(service)
    await nursery.start(fleet.run)
    bad, good = a_node("bad", tmp_path, "-oProxyCommand=id"), a_node("good", tmp_path / "g")
    fleet.update([bad, good])
    for node in (good, bad):
        transport = fleet.transport(node.name)
        assert transport is not None
        if node is bad:
            with pytest.raises(NodeUnfit, match="ssh_host"):
                await transport.collect()
        else:
            await transport.collect()


async def test_connection_check_answers_and_opens_anew(
    nursery: trio.Nursery, ssh_fleet: SshFleet
) -> None:
    node = ssh_fleet.add("alpha")
    service = SshService(ssh_fleet.settings, in_thread)
    await nursery.start(service.run)
    fleet = a_fleet(service)
    await nursery.start(fleet.run)
    fleet.update([a_node("n", "~/dispatch", "alpha"), a_node("here", "/tmp")])
    assert isinstance(fleet.machine("n"), SshMachine)
    assert 0 < await fleet.check_connection("n") < 10
    node.crash()
    with pytest.raises(TransportLost):
        while True:
            await fleet.check_connection("n")
    await in_thread(node.start)
    assert await fleet.check_connection("n") < 10
    with pytest.raises(TransportLost, match="SSH"):
        await fleet.check_connection("here")


def test_own_task_wrapper_means_polling(tmp_path: Path) -> None:
    fleet = a_fleet(task_wrapper="/opt/task-wrapper.sh")
    node = a_node("n", tmp_path)
    fleet.update([node])
    assert isinstance(fleet.transport(node.name), PolledTransport)


@pytest.mark.parametrize(
    ("work_dir", "root"),
    [
        ("~/dispatch", "~/dispatch"),
        ("/srv/d/", "/srv/d"),
        ("dispatch", "~/dispatch"),
        ("~", "~/dispatch"),
        ("", "~/dispatch"),
    ],
)
def test_work_dir_means_the_same_everywhere(work_dir: str, root: str) -> None:
    assert work_root(work_dir) == root
