"""Alerts: a JSON file under guardian_alerts/, and a POST where a webhook is configured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import structlog
import trio
from pydantic import SecretStr

from dispatch_controller.core.incidents import Incident
from dispatch_controller.core.times import iso
from dispatch_controller.home import Home
from dispatch_controller.loops.context import Context

log = structlog.get_logger(__name__)

TIME_OUT = 10.0
"""Seconds for one POST; a webhook that hangs delays nobody."""
WAITING = 100
"""Alerts that wait for the webhook; more than that are only files."""


class Alerts:
    """Sends one alert per incident. `run` posts; writing the file needs no task."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._folder = Home(context.settings.home).alerts
        self._send, self._receive = trio.open_memory_channel[dict[str, object]](WAITING)

    async def send(self, incident: Incident, now: float) -> None:
        """Write the alert's file and queue its POST. Failing does not fail the caller's check."""
        alert: dict[str, object] = {
            "type": incident.root,
            "message": f"{incident.text} ({incident.count} findings)",
            "severity": incident.severity.name.lower(),
            "timestamp": iso(now),
        }
        name = f"{iso(now).replace(':', '')}-{re.sub(r'[^A-Za-z0-9._-]+', '-', incident.root)}.json"
        try:
            await self._context.run_sync(_write, self._folder / name, alert)
        except OSError as error:
            log.error("alert not written", root=incident.root, error=str(error))
        if self._context.settings.webhook_url is None:
            return
        try:
            self._send.send_nowait(alert)
        except trio.WouldBlock:
            log.warning("alert not posted: the webhook is too slow", root=incident.root)

    async def run(self) -> None:
        """Post queued alerts, until the stop."""
        stop, webhook = self._context.stop, self._context.settings.webhook_url
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._post_all, webhook, name="webhook")
            await stop.wait()
            nursery.cancel_scope.cancel()

    async def _post_all(self, webhook: SecretStr | None) -> None:
        async with httpx.AsyncClient(timeout=TIME_OUT) as client:
            async for alert in self._receive:
                if webhook is not None:
                    await self._post(client, webhook.get_secret_value(), alert)

    async def _post(self, client: httpx.AsyncClient, url: str, alert: dict[str, object]) -> None:
        with trio.move_on_after(TIME_OUT):
            try:
                answer = await client.post(url, json=alert)
                answer.raise_for_status()
            except httpx.HTTPError as error:
                log.warning("alert not posted", type=alert["type"], error=type(error).__name__)
            return
        log.warning("alert not posted", type=alert["type"], error="time-out")


def _write(path: Path, alert: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(alert, ensure_ascii=False, indent=2) + "\n", "utf-8")
    beside.replace(path)
