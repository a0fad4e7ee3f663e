"""One HTTP exchange: bounded in time and size, and what came is returned however it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import trio

from dispatch_controller.settings_sections import is_loopback

CONNECT_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came over the connection. `broken` says why it is not the whole, None if it is."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    broken: str | None = None


class Unreachable(Exception):
    """No answer began. `sent` says whether the request may have been worked on."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


async def exchange(
    method: str,
    url: str,
    *,
    timeout: float,  # noqa: ASYNC109 - what came until then is the result
    limit: int,
    headers: Mapping[str, str],
    params: Mapping[str, str] | None = None,
    json: Mapping[str, Any] | None = None,
    redirects: bool = False,
) -> Reply:
    """Send a request and return the reply, `limit` bytes of it at most. Raises Unreachable."""
    status = 0
    got: dict[str, str] = {}
    content = bytearray()
    broken: str | None = None
    with trio.move_on_after(timeout) as scope:
        try:
            async with (
                httpx.AsyncClient(
                    timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
                    # A proxy from the environment must not come between this machine and itself.
                    trust_env=not is_loopback(httpx.URL(url).host),
                    follow_redirects=redirects,
                    max_redirects=5,
                ) as client,
                client.stream(
                    method, url, headers=dict(headers), params=params or None, json=json
                ) as response,
            ):
                status = response.status_code
                got = {name.lower(): value for name, value in response.headers.items()}
                async for piece in response.aiter_bytes():
                    content += piece
                    if len(content) > limit:
                        broken = f"is larger than {limit} bytes"
                        # Leaving the loop would leave httpx's generators open; this ends them.
                        scope.cancel()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            what = str(error) or type(error).__name__
            raise Unreachable(f"cannot be reached: {what}", sent=False) from error
        except httpx.HTTPError as error:
            broken = f"broke off: {error or type(error).__name__}"
        except (httpx.InvalidURL, ValueError) as error:
            raise Unreachable(f"{url}: {error}", sent=False) from error
    if scope.cancelled_caught and broken is None:
        broken = f"did not end within {timeout:g} s"
    if not status:
        raise Unreachable(f"gave no answer: it {broken}", sent=True)
    return Reply(status, got, bytes(content[:limit]), broken)
