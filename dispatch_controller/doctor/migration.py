"""What the first start on a home of the former programs will do, told before it is done."""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from urllib.parse import urlsplit

from dispatch_controller.doctor.files import Files
from dispatch_controller.doctor.finding import Finding, note, warning
from dispatch_controller.home import Home
from dispatch_controller.model import TaskStatus
from dispatch_controller.node_files import NodeEntry
from dispatch_controller.settings import Settings
from dispatch_controller.settings_sections import Network
from dispatch_controller.store.inspection import Inspection, expired_leases, local_times

_NAMED = 5
"""Ids that a sentence names."""


def first_start(
    home: Home,
    settings: Settings,
    files: Files,
    seen: Inspection | None,
    lost: Collection[str],
    now: float,
) -> Iterator[Finding]:
    """What becomes of tasks, locks, nodes and specs that are there. `lost`: nodes in trouble."""
    if not home.database.exists():
        yield note("migrate", home.database, "does not exist; the first start makes it")
    elif seen is not None and seen.usable:
        yield from _tasks(home, seen, lost, now)
        yield from _locks_and_nodes(home, files, seen)
    if files.plan is not None:
        yield from _specs(settings, files)


def _tasks(home: Home, seen: Inspection, lost: Collection[str], now: float) -> Iterator[Finding]:
    subject = home.database
    counts = ", ".join(f"{count} {status}" for status, count in seen.counts if count)
    yield note(
        "migrate", subject, f"holds {counts or 'no tasks'} and {seen.events} events; all stay"
    )
    if seen.held:
        states = Counter(task.status.value for task in seen.held)
        nodes = Counter(task.node or "(no node)" for task in seen.held)
        places = ", ".join(f"{count} on {node}" for node, count in sorted(nodes.items()))
        told = " and ".join(f"{count} {state}" for state, count in sorted(states.items()))
        text = (
            f"{told} tasks ({places}) are looked up on their nodes: what lives or has ended there "
            "is taken over, what a node that answers does not know goes back to pending at no cost"
        )
        yield note("migrate", subject, text)
    away = sorted(task.id for task in seen.held if task.node in lost)
    if away:
        text = f"{_named(away)} stay as they are until their nodes answer again"
        yield warning("migrate", subject, text, "mend the nodes named above first")
    nowhere = sorted(task.id for task in seen.held if task.node is None)
    if nowhere:
        yield note("migrate", subject, f"{_named(nowhere)} name no node and go back to pending")
    expired = expired_leases(seen.held, now)
    if expired:
        told = " and ".join(f"{count} {state}" for state, count in sorted(expired.items()))
        yield note(
            "migrate", subject, f"the leases of {told} tasks are over; they are looked up first"
        )
    if seen.expired:
        text = f"{len(seen.expired)} pending tasks have a lease that is over; it is cleared"
        yield note("migrate", subject, text)
    no_pid = sum(task.pid is None for task in seen.held if task.status is TaskStatus.RUNNING)
    if no_pid:
        text = f"{no_pid} running tasks have no pid; their nodes are asked by the task's name"
        yield note("migrate", subject, text)
    local = local_times(home.database)
    if local:
        text = (
            f"the times of {local} tasks have no offset and are read as this machine's local time"
        )
        yield note("migrate", subject, text)


def _locks_and_nodes(home: Home, files: Files, seen: Inspection) -> Iterator[Finding]:
    if seen.lost_locks:
        text = f"file locks of {_named(seen.lost_locks)}, which do not run, are removed"
        yield note("migrate", home.database, text)
    listed = {node.name for node in files.nodes.nodes}
    if files.nodes.complete:
        gone = sorted(name for name, _ in seen.nodes if name not in listed)
        if gone:
            text = f"{_named(gone)} are in the database and not in nodes.json: they keep their row"
            fix = "add those that are to take tasks to nodes.json"
            yield note("migrate", home.nodes, text, fix)
    used = {task.node for task in seen.held if task.node is not None}
    unknown = sorted(used - listed - {name for name, _ in seen.nodes})
    if unknown:
        text = f"tasks run on {_named(unknown)}, which neither nodes.json nor the database names"
        yield warning("migrate", home.nodes, text, "add them to nodes.json before the first start")


def _specs(settings: Settings, files: Files) -> Iterator[Finding]:
    plan = files.plan
    assert plan is not None  # noqa: S101 - for the type checker; first_start looked
    documents = sum(len(found.documents) for found in files.found)
    text = (
        f"{len(plan.inserts)} specs become new tasks, {len(plan.updates)} tasks are updated, "
        f"{len(plan.unchanged)} stay as they are; {documents} files are documents"
    )
    yield note("migrate", settings.specs, text)
    gone = sorted(event.task_id for event in plan.events if event.event_type == "spec_gone")
    if gone:
        text = f"the spec files of {_named(gone)} are gone; their tasks wait until they are back"
        fix = "put the files back, or cancel the tasks"
        yield note("migrate", settings.specs, text, fix)


def remote_workers(home: Home, settings: Settings, nodes: Sequence[NodeEntry]) -> Iterator[Finding]:
    """What workers on other machines need: the former controller listened on 0.0.0.0."""
    workers = [node for node in nodes if node.worker_url is not None]
    if settings.loopback:
        lines = [
            'host = "0.0.0.0"',
            'api_token_file = "~/.config/dispatch/token"',
            f"legacy_worker_networks = [{', '.join(_networks(workers))}]",
        ]
        text = (
            f"the former controller listened on 0.0.0.0, this one on {settings.host}: workers on "
            "other machines do not reach it"
        )
        fix = (
            f"with remote workers, add to {home.settings}:\n"
            + "\n".join(f"    {line}" for line in lines)
            + "\nand make the token:\n"
            "    mkdir -p ~/.config/dispatch && "
            "(umask 077; openssl rand -hex 32 > ~/.config/dispatch/token)\n"
            "Workers that can send a token need no legacy_worker_networks."
        )
        judge = warning if workers else note
        yield judge("migrate", "remote workers", text, fix)
        return
    for node in workers:
        address = _address(node)
        if address is not None and not _covered(address, settings.legacy_worker_networks):
            text = f"worker {node.name} ({address}) has to send the token to report"
            fix = f"give it the token, or add {_network(address)} to legacy_worker_networks"
            yield note("migrate", "remote workers", text, fix)


def _networks(workers: Sequence[NodeEntry]) -> list[str]:
    found = {_network(address) for node in workers if (address := _address(node)) is not None}
    return sorted(found) or ['"192.168.1.0/24"']


def _network(address: str) -> str:
    parsed = ipaddress.ip_address(address)
    return f'"{address}/{parsed.max_prefixlen}"'


def _covered(address: str, networks: Sequence[Network]) -> bool:
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in networks)


def _address(node: NodeEntry) -> str | None:
    host = urlsplit(node.worker_url or "").hostname
    try:
        return str(ipaddress.ip_address(socket.gethostbyname(host))) if host else None
    except (OSError, ValueError):
        return None


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    more = len(names) - _NAMED
    return shown + (f" and {more} more" if more > 0 else "")
