"""The worker's calls to its controller (http.md, /v1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import structlog

from dispatch_controller.fleet.http import Answer, NoAnswer, NotSent, exchange
from dispatch_controller.runtime.every import Wake

log = structlog.get_logger(__name__)

TIME_OUT = 20.0
"""Seconds for one call."""
MOST_TASKS = 64 * 1024 * 1024
"""Bytes of an answer to a poll: as many specs as there are slots."""


class Link:
    """Says once when the controller goes away and when it is back, `back` then set."""

    def __init__(self, client: httpx.AsyncClient, controller: str, token: str | None) -> None:
        self._client = client
        self._url = controller.rstrip("/")
        self._token = token
        self._trouble: str | None = None
        self.back = Wake()

    async def call(self, name: str, body: Mapping[str, Any]) -> Answer | None:
        """Return the answer to a POST, whatever its status; None where there was none."""
        try:
            answer = await exchange(
                self._client, "POST", f"{self._url}/v1/{name}", token=self._token, timeout=TIME_OUT,
                body=body, most=MOST_TASKS,
            )  # fmt: skip
        except (NotSent, NoAnswer) as error:
            self._note(str(error))
            return None
        refused = answer.status in (401, 403) or answer.status >= 500
        self._note(f"{name}: {answer.error}" if refused else None)
        return answer

    def _note(self, trouble: str | None) -> None:
        if trouble is None and self._trouble is not None:
            log.info("the controller answers again", url=self._url)
            self.back.set()
        elif trouble is not None and self._trouble is None:
            log.warning("the controller is not reached", url=self._url, reason=trouble)
        self._trouble = trouble
