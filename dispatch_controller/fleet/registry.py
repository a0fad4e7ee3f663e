"""Which transport leads to which node, following the rows of `nodes`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import httpx
import trio

from dispatch_controller.fleet.bundle import Bundle
from dispatch_controller.fleet.http import new_client, worker_token
from dispatch_controller.fleet.local import LocalMachine
from dispatch_controller.fleet.polled import PolledTransport
from dispatch_controller.fleet.serve import ServeTransport
from dispatch_controller.fleet.ssh import SshMachine, SshService
from dispatch_controller.fleet.transport import Machine, TransportLost
from dispatch_controller.fleet.worker import WorkerDirectory, WorkerTransport
from dispatch_controller.model import Node, Observation
from dispatch_controller.runtime.clock import Clock


@dataclass(slots=True)
class _Member:
    node: Node
    by_worker: bool
    transport: ServeTransport | PolledTransport | WorkerTransport
    scope: trio.CancelScope


class Fleet:
    """Transports by node. `run` keeps their channels; `update` follows the table of nodes.

    `reporter` takes a node's name and what it told unasked, which may be nothing at all.
    `task_wrapper`: path of the nodes' own `task-wrapper.sh`; None for ours, `wrapper`.
    `workers` says which nodes are served by their HTTP workers; `api_token` is the controller's.
    """

    def __init__(
        self,
        ssh: SshService,
        owner: str,
        wrapper: Bundle,
        reporter: Callable[[str, Sequence[Observation]], None],
        clock: Clock,
        task_wrapper: str | None = None,
        workers: WorkerDirectory | None = None,
        api_token: str | None = None,
    ) -> None:
        self._workers = workers
        self._api_token = api_token
        self._http: httpx.AsyncClient | None = None
        self._ssh = ssh
        self._owner = owner
        self._wrapper = wrapper
        self._reporter = reporter
        self._clock = clock
        self._task_wrapper = task_wrapper
        self._members: dict[str, _Member] = {}
        self._canary: tuple[str, Bundle] | None = None
        self._nursery: trio.Nursery | None = None

    def release(self, wrapper: Bundle, canary: str | None, candidate: Bundle | None) -> None:
        """Have all nodes run `wrapper`, but `canary`, which tries `candidate`.

        Channels whose wrapper changes are opened anew; tasks do not notice.
        """
        before = {name: self._bundle(name).sha256 for name in self._members}
        self._wrapper = wrapper
        self._canary = (canary, candidate) if canary and candidate else None
        for name, sha256 in before.items():
            if self._bundle(name).sha256 != sha256:
                self.reconnect(name, self._bundle(name))

    def _bundle(self, name: str) -> Bundle:
        if self._canary is not None and self._canary[0] == name:
            return self._canary[1]
        return self._wrapper

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the channels of all members, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for name, member in self._members.items():
                    nursery.start_soon(_keep, member, name=f"node {name}")
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None
                if self._http is not None:
                    with trio.CancelScope(shield=True):
                        await self._http.aclose()
                    self._http = None

    def update(self, nodes: Sequence[Node]) -> None:
        """Take in new nodes, let go of those that are gone, rebuild where the way has changed.

        Tasks on the nodes do not notice. Disabled nodes stay: what runs there is still watched.
        """
        rows = {node.name: node for node in nodes}
        for name in self._members.keys() - rows.keys():
            self._members.pop(name).scope.cancel()
        for node in nodes:
            self._follow(node)

    def _follow(self, node: Node) -> _Member:
        """Return the member for a node, rebuilt where the way to it has changed."""
        by_worker = self._workers is not None and self._workers.serves(node.name)
        member = self._members.get(node.name)
        if member is not None:
            before = (member.node.ssh_host, member.node.work_dir, member.by_worker)
            if before == (node.ssh_host, node.work_dir, by_worker):
                member.node = node
                return member
            member.scope.cancel()
        member = _Member(node, by_worker, self._build(node, by_worker), trio.CancelScope())
        self._members[node.name] = member
        if self._nursery is not None:
            self._nursery.start_soon(_keep, member, name=f"node {node.name}")
        return member

    def transport(self, name: str) -> ServeTransport | PolledTransport | WorkerTransport | None:
        """Return the way to a node; None for one that is not in the last update."""
        member = self._members.get(name)
        return None if member is None else self._follow(member.node).transport

    def machine(self, name: str) -> Machine | None:
        """Return the host behind a node, to bring code to it; None where there is none to reach."""
        member = self._members.get(name)
        return None if member is None else member.transport.machine

    def root(self, name: str) -> str | None:
        """Return the node's work_dir as the transports use it."""
        member = self._members.get(name)
        return None if member is None else work_root(member.node.work_dir)

    def reconnect(self, name: str, wrapper: Bundle | None = None) -> None:
        """Open a node's channel anew, now; with another release of the wrapper where given."""
        member = self._members.get(name)
        if member is not None and isinstance(member.transport, ServeTransport):
            member.transport.reconnect(wrapper)

    def wrapper_of(self, name: str) -> str | None:
        """Return the SHA-256 of the wrapper a node should run; None for a cluster's own."""
        member = self._members.get(name)
        ours = member is not None and isinstance(member.transport, ServeTransport)
        return self._bundle(name).sha256 if ours else None

    async def check_connection(self, name: str) -> float:
        """Return the seconds an SSH node's pooled connection takes to answer.

        Raises TransportLost after 10 s, or where the node is none of SSH's; a connection that did
        not answer was closed, and the next use opens a new one.
        """
        machine = self.machine(name)
        if not isinstance(machine, SshMachine):
            raise TransportLost(name, "is not reached by SSH")
        return await machine.check()

    def _build(
        self, node: Node, by_worker: bool
    ) -> ServeTransport | PolledTransport | WorkerTransport:
        if by_worker and self._workers is not None:
            return self._build_worker(node, self._workers)
        machine: Machine
        if node.ssh_host is None:
            machine = LocalMachine(node.name)
        else:
            machine = SshMachine(self._ssh, node.name, node.ssh_host)
        root = work_root(node.work_dir)
        if self._task_wrapper is not None:
            return PolledTransport(machine, root, self._owner, self._task_wrapper, self._clock)
        return ServeTransport(
            machine, root, self._owner, self._bundle(node.name),
            partial(self._reporter, node.name), self._clock,
        )  # fmt: skip

    def _build_worker(self, node: Node, workers: WorkerDirectory) -> WorkerTransport:
        if self._http is None:
            self._http = new_client()
        return WorkerTransport(
            node.name, work_root(node.work_dir), workers, self._http, self._clock,
            None if self._api_token is None else worker_token(self._api_token, node.name),
        )  # fmt: skip


def work_root(work_dir: str) -> str:
    """Return `nodes.work_dir` so that it means the same everywhere: absolute, or below `~/`."""
    path = work_dir.rstrip("/")
    if path in ("", "~"):
        return "~/dispatch"
    return path if path.startswith(("/", "~/")) else f"~/{path}"


async def _keep(member: _Member) -> None:
    with member.scope:
        await member.transport.run()
