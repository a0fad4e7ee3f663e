"""Checks of the controller: one that runs is asked; where none does, its place must be free."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from dispatch_controller import __version__
from dispatch_controller.doctor.finding import Finding, error, warning
from dispatch_controller.home import Home, HomeError, read_controller
from dispatch_controller.settings import Settings

Ask = Callable[[str], tuple[int, Any]]
"""GET of a path: HTTP status and body. Raises Unanswered."""


class Unanswered(Exception):
    """The controller gave no answer; the text says why."""


def check_running(pid: int | None, ask: Ask) -> Iterator[Finding]:
    """What the running controller says of itself and of its nodes."""
    who = f"controller (pid {pid or 'not known'})"
    try:
        health, body = ask("/health")
        status = ask("/v1/status")[1]
        nodes = ask("/api/v1/nodes")[1]
    except Unanswered as failed:
        text = f"holds the home and does not answer: {failed}"
        kill = f"kill -9 {pid or 'PID'}"
        fix = f"look at its log; end it with {kill} and start it again: nothing is lost"
        yield error("controller", who, text, fix)
        return
    if health != 200:
        for reason in _reasons(body):
            fix = "see logs/controller.log in the home and docs/troubleshooting.md"
            yield error("controller", who, reason, fix)
    version = status.get("version") if isinstance(status, Mapping) else None
    if version != __version__:
        text = f"runs version {version}, and {__version__} is installed"
        fix = "restart it: dispatch-controller service restart (tasks on nodes go on)"
        yield warning("controller", who, text, fix)
    yield from _check_quarantine(nodes)


def _reasons(body: object) -> list[str]:
    reasons = body.get("reasons") if isinstance(body, Mapping) else None
    if not isinstance(reasons, list) or not reasons:
        return ["is not healthy and does not say why"]
    return [
        str(reason.get("text") or reason) if isinstance(reason, Mapping) else str(reason)
        for reason in reasons
    ]


def _check_quarantine(answer: object) -> Iterator[Finding]:
    rows = answer.get("data") if isinstance(answer, Mapping) else None
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, Mapping) and row.get("quarantined"):
            why = row.get("quarantine_reason") or "no reason given"
            text = f"is quarantined and takes no task: {why}"
            fix = "mend what it says; it comes back by itself after three good probes"
            yield warning("node", str(row.get("name")), text, fix)


def check_leftovers(home: Home) -> Iterator[Finding]:
    """controller.json of a controller that was killed, and files it had begun to write."""
    try:
        there = read_controller(home) is not None
    except HomeError:
        there = True
    if there:
        text = "is left of a controller that was killed; commands look for it there in vain"
        repair = partial(home.controller.unlink, missing_ok=True)
        yield warning("controller", home.controller, text, f"rm {home.controller}", repair)


def check_port(settings: Settings) -> Iterator[Finding]:
    """Whether the address that the controller would listen on is free."""
    if settings.port == 0:
        return
    address = f"{settings.host}:{settings.port}"
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, place = found[0]
        with socket.socket(family, kind, protocol) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind(place)
    except OSError as failed:
        if failed.errno == errno.EADDRINUSE:
            fix = (
                f"end it (lsof -i :{settings.port} shows it), or set another port in dispatch.toml"
            )
            yield error("port", address, "another program listens there", fix)
        else:
            text = f"cannot be listened on: {failed.strerror}"
            yield error("port", address, text, "set host to an address of this machine")
