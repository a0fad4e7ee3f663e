"""Where a worker without a token may speak from (http.md, Who gets in)."""

from __future__ import annotations

from urllib.parse import urlsplit

import trio

from dispatch_controller.loops.context import Context
from dispatch_controller.web.answers import refuse
from dispatch_controller.web.auth import Caller, plain_address


def check_url(url: str, who: Caller) -> None:
    """Refuse a worker_url that cannot be one, or that is not its caller's own without a token."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        refuse(422, "worker_url: write http://HOST:PORT")
    if who.legacy and plain_address(parts.hostname or "") != who.address:
        refuse(403, "without a token, worker_url must name the caller's own address")


async def bound_to_address(context: Context, node: str, who: Caller) -> None:
    """Refuse a worker without a token that speaks from another address than its node is known by.

    Known by: worker_url in nodes.json, else ssh_host, else the address it first spoke from.
    """
    if not who.legacy:
        return
    known = await _configured(context, node)
    if not known:
        worker = context.workers.get(node)
        known = {who.address} if worker is None else {worker.address}
    if who.address not in known:
        refuse(
            403,
            f"{node} is known by another address than {who.address}: set its worker_url in "
            "nodes.json, or let the worker send the token",
        )


async def _configured(context: Context, node: str) -> set[str]:
    """Return the addresses that the node's entry names; none where it names none that is known."""
    url = context.workers.configured.get(node)
    row = context.knowledge.nodes.get(node)
    if url is not None:
        host = urlsplit(url).hostname
    elif row is not None and row.ssh_host is not None:
        host = urlsplit(f"ssh://{row.ssh_host}").hostname
    else:
        return set()
    try:
        found = await trio.socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return set()
    return {plain_address(str(address[0])) for *_, address in found}
