"""One bounded HTTP exchange in JSON: what workers and controller say to each other.

Redirects are not followed, answers not read beyond a limit, proxies of the environment not used;
each exchange is a connection of its own, so that none is ever sent into one that is half closed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import trio

MOST_ANSWER = 4 * 1024 * 1024
"""Bytes."""
CONNECT = 5.0
"""Seconds."""


class NotSent(Exception):
    """The request never left this machine: no connection came about."""


class NoAnswer(Exception):
    """The request may have arrived; no usable answer did."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Mapping[str, Any]
    """Empty where the answer was no JSON object."""

    @property
    def error(self) -> str:
        """What it says went wrong, else its status."""
        said = self.body.get("error") or self.body.get("message")
        return said[:500] if isinstance(said, str) and said else f"HTTP status {self.status}"


def new_client() -> httpx.AsyncClient:
    """Return a client for `exchange`; close it at the end."""
    return httpx.AsyncClient(
        follow_redirects=False,
        trust_env=False,
        timeout=httpx.Timeout(None, connect=CONNECT),
        limits=httpx.Limits(max_connections=256, max_keepalive_connections=0),
    )


async def exchange(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    token: str | None,
    timeout: float,
    body: Mapping[str, Any] | None = None,
    query: Mapping[str, str | int] | None = None,
    most: int = MOST_ANSWER,
) -> Answer:
    """Send a request and return its answer, whatever its status.

    `timeout` is for the whole exchange, in seconds; `most` are the bytes of the answer that are
    read. Raises NotSent and NoAnswer.
    """
    headers = {"Accept-Encoding": "identity"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    content = bytearray()
    with trio.move_on_after(timeout) as scope:
        try:
            async with client.stream(
                method, url, json=body, params=query, headers=headers
            ) as response:
                async for piece in response.aiter_bytes():
                    content += piece
                    if len(content) > most:
                        scope.cancel()  # leaving the loop would leave httpx's generators open
                return Answer(response.status_code, _object(bytes(content)))
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotSent(f"no connection to {url}: {_said(error)}") from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise NotSent(f"{url}: {_said(error)}") from error
        except httpx.HTTPError as error:
            raise NoAnswer(f"{url}: {_said(error)}") from error
    if len(content) > most:
        raise NoAnswer(f"{url}: the answer is larger than {most} bytes")
    raise NoAnswer(f"{url}: no answer within {timeout:g} s")


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def worker_token(api_token: str, node: str) -> str:
    """Return the token by which the controller shows itself to a node's worker.

    Both know the controller's own token. That one is never sent to a worker, which may be any
    host that a heartbeat named.
    """
    return hmac.new(api_token.encode(), f"worker {node}".encode(), hashlib.sha256).hexdigest()
