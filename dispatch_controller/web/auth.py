"""Who gets in (http.md): decided from a request's head alone, before anything of it is read."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from dispatch_controller.settings import Settings
from dispatch_controller.settings_sections import is_loopback
from dispatch_controller.web.sessions import Sessions

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
WORKER_PATHS = frozenset({"/v1/heartbeat", "/v1/task_report", "/v1/poll"})
"""What `legacy_worker_networks` opens, and nothing else."""
ENTRANCE = "/login"
ASSETS = "/static/"
"""Open to all, with ENTRANCE: what a browser needs to log in. No secret is among them."""

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+)(?::(\d{1,5}))?", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may ask. Forwarding headers are never looked at."""

    address: str
    """IP address of the other end of the connection; empty where it has none."""
    legacy: bool = False
    """Let in by its network alone: its node_id is bound to its address."""


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    message: str


class Gate:
    """Decides on each request by the rules for the address that HTTP is bound to."""

    def __init__(self, settings: Settings, sessions: Sessions | None = None) -> None:
        self._sessions = sessions
        self._loopback = settings.loopback
        token = settings.api_token
        self._token = None if token is None else token.get_secret_value().encode()
        self._networks = settings.legacy_worker_networks

    def admit(
        self, method: str, path: str, scheme: str, headers: Headers, address: str
    ) -> Caller | Refusal:
        """Return who asks, or why the answer is no."""
        found = _lists(headers)
        address = plain_address(address)
        host = _authority(scheme, found.get("host", []))
        if self._loopback:
            if host is None or not is_loopback(host[1]):
                return Refusal(403, "this controller answers to loopback names only (Host header)")
        elif (refused := self._without_token(found.get("authorization", []))) is not None:
            if self._from_worker(method, path, found.get("authorization", []), address):
                return Caller(address, legacy=True)
            if found.get("authorization") or not self._from_browser(method, path, found):
                return refused
        if method not in SAFE_METHODS and not _same_origin(host, found.get("origin", [])):
            return Refusal(403, "a state change asked for by a page of another origin is refused")
        return Caller(address)

    def _without_token(self, given: list[str]) -> Refusal | None:
        if len(given) != 1:
            return Refusal(401, "a bearer token is required: Authorization: Bearer <token>")
        scheme, _, token = given[0].partition(" ")
        right = self._token is not None and hmac.compare_digest(
            token.strip().encode("latin-1", "replace"), self._token
        )
        if scheme.lower() != "bearer" or not right:
            return Refusal(401, "that is not the controller's bearer token")
        return None

    def _from_browser(self, method: str, path: str, found: Mapping[str, list[str]]) -> bool:
        """Whether this is a browser that logged in, or that is about to.

        Its state changes need an Origin, which the caller compares: every browser sends one.
        """
        if method not in SAFE_METHODS and not found.get("origin"):
            return False
        if path == ENTRANCE or (method in SAFE_METHODS and path.startswith(ASSETS)):
            return True
        return self._sessions is not None and self._sessions.valid(
            "; ".join(found.get("cookie", []))
        )

    def _from_worker(self, method: str, path: str, given: list[str], address: str) -> bool:
        """Whether this is a worker that cannot send a token. One that sends a wrong one can."""
        if given or method != "POST" or path not in WORKER_PATHS:
            return False
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)


def plain_address(address: str) -> str:
    """Return an IP address in its shortest form; IPv4 inside IPv6 as IPv4."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)


def _lists(headers: Headers) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    return found


Authority = tuple[str, str, int]


def _authority(scheme: str, hosts: list[str]) -> Authority | None:
    """Return (scheme, host, port) of the one Host header, None where it is none or not one."""
    if len(hosts) != 1:
        return None
    match = _AUTHORITY.fullmatch(hosts[0])
    if match is None:
        return None
    port = int(match[2]) if match[2] else _DEFAULT_PORTS.get(scheme, 0)
    return scheme, match[1].strip("[]").lower(), port


def _same_origin(host: Authority | None, origins: list[str]) -> bool:
    """Whether no page, or a page of this controller, asks. `Origin: null` is foreign."""
    for origin in origins:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if host is None or _authority(parts.scheme, [parts.netloc]) != host:
            return False
    return True
