"""Readiness and watchdog messages to systemd (man sd_notify); nothing happens without systemd."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog
import trio

log = structlog.get_logger(__name__)


class Stoppable(Protocol):
    """What `watchdog` needs of loops.context.Context."""

    @property
    def stop(self) -> trio.Event: ...


@dataclass(frozen=True, slots=True)
class Notifier:
    """Where systemd listens, and how often it wants to hear of us."""

    address: str
    period: float | None
    """Seconds between two signs of life: half of what systemd allows; None without a watchdog."""

    def send(self, state: str) -> bool:
        """Send one message; return whether it went out. Never blocks and never raises.

        A message that is lost is told by systemd itself: it ends what it does not hear of.
        """
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as end:
                end.setblocking(False)
                end.sendto(state.encode(), address)
        except OSError as error:
            log.warning("systemd does not take messages", state=state, error=str(error))
            return False
        return True


def notifier(environ: Mapping[str, str], pid: int) -> Notifier | None:
    """Return the way to the service manager that started process `pid`, None where none did."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return None
    limit = environ.get("WATCHDOG_USEC", "")
    for_us = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
    watched = for_us and limit.isdigit() and int(limit) > 0
    return Notifier(address, int(limit) / 2_000_000 if watched else None)


async def watchdog(context: Stoppable, environ: Mapping[str, str] | None = None) -> None:
    """Say READY=1 now, WATCHDOG=1 while the event loop turns, STOPPING=1 once the stop is asked.

    Start it in the infrastructure nursery when the controller serves, and cancel it with that:
    signs of life go on through the shutdown. Being a task of the loop, it is silent when that
    stands still. Returns at once where no manager listens.
    """
    found = notifier(os.environ if environ is None else environ, os.getpid())
    if found is None:
        return
    found.send("READY=1")
    async with trio.open_nursery() as nursery:
        if found.period is not None:
            nursery.start_soon(_beat, found, found.period)
        await context.stop.wait()
        found.send("STOPPING=1")


async def _beat(found: Notifier, period: float) -> None:
    while True:
        found.send("WATCHDOG=1")
        await trio.sleep(period)
