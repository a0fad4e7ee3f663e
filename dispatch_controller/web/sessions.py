"""Sessions of browsers: a signed time of expiry, so that they outlive a restart and keep no list.

The cookie is made from the token but does not hold it: whoever reads one cannot log in with it
elsewhere, and a new token ends all sessions.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie

from dispatch_controller.settings import Settings

LIFETIME = 14 * 86_400
"""Seconds until a browser has to log in again."""


class Sessions:
    """Opens, checks and ends the sessions of one controller."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        token = settings.api_token
        self._token = None if token is None else token.get_secret_value().encode()
        self._key = hmac.digest(self._token or secrets.token_bytes(32), b"session", "sha256")
        self._clock = clock
        self._ended: dict[str, float] = {}
        self._secure = settings.tls_certificate is not None
        # Browsers share cookies between the ports of a host: each controller has its own name.
        self.cookie = f"dispatch_{self._sign('name')[:8]}"

    def is_token(self, given: str) -> bool:
        """Whether that is the controller's token; takes as long for any wrong one."""
        return self._token is not None and hmac.compare_digest(
            given.encode("utf-8", "replace"), self._token
        )

    def open(self) -> str:
        """Return a new session's value for Set-Cookie."""
        head = f"{int(self._clock()) + LIFETIME}.{secrets.token_urlsafe(12)}"
        return self._header(f"{head}.{self._sign(head)}", LIFETIME)

    def end(self, cookies: str) -> str:
        """End the session that a Cookie header names; return the value for Set-Cookie."""
        now, value = self._clock(), self._value(cookies)
        self._ended = {one: until for one, until in self._ended.items() if until > now}
        if value is not None and self.valid(cookies):
            self._ended[value] = now + LIFETIME
        return self._header("", 0)

    def valid(self, cookies: str) -> bool:
        """Whether a Cookie header names a session that this controller opened and that lasts."""
        value = self._value(cookies)
        if self._token is None or value is None or value in self._ended:
            return False
        head, _, signature = value.rpartition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), self._sign(head).encode()):
            return False
        expires = head.partition(".")[0]
        return expires.isdecimal() and int(expires) > self._clock()

    def _value(self, cookies: str) -> str | None:
        try:
            morsel = SimpleCookie(cookies).get(self.cookie)
        except CookieError:
            return None
        return None if morsel is None or not morsel.value else morsel.value

    def _sign(self, text: str) -> str:
        return hmac.digest(self._key, text.encode("utf-8", "replace"), "sha256").hex()

    def _header(self, value: str, age: int) -> str:
        secure = "; Secure" if self._secure else ""
        return f"{self.cookie}={value}; Max-Age={age}; Path=/; HttpOnly; SameSite=Strict{secure}"
