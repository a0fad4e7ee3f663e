"""What the generators `anthropic` and `openai` have in common: budget, retries, strict reading."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import trio

from dispatch_controller.core import candidates
from dispatch_controller.factory import endpoint
from dispatch_controller.factory.generator import Generated, GeneratorFailed, Request
from dispatch_controller.factory.http import Reply, Unreachable, exchange
from dispatch_controller.factory.prompt import render
from dispatch_controller.runtime.clock import Clock
from dispatch_controller.runtime.threads import RunSync
from dispatch_controller.settings_sections import ModelGenerator

SHORT_WAIT = 20.0
"""Seconds that a retry may wait within a cycle; a longer one is left to a later cycle."""
LIMITED = 900.0
"""Seconds to wait after a rate limit that names no end."""
_OVERHEAD = 256
"""Tokens that a protocol may add to a prompt."""
_NONE = re.compile(r"\W*no specs\W*", re.IGNORECASE)
_BUSY = frozenset({500, 502, 503, 504, 529})


class Purse(Protocol):
    """Keeps the budget of 24 hours (docs/factory.md)."""

    async def reserve(self, generator: str, tokens: int, cost: float) -> str | None:
        """Set aside what a call may cost at most; return why not, or None."""

    async def give_back(self, generator: str, tokens: int, cost: float) -> None:
        """Return what of a reservation was not used; negative where more was."""


@dataclass(frozen=True, slots=True)
class Call:
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said. Tokens are None where the answer does not say."""

    text: str
    ended: bool
    """It came to its own end, not to a limit of its length."""
    tokens_in: int | None = None
    tokens_out: int | None = None
    refusal: str | None = None
    error: str | None = None
    """What the endpoint itself says went wrong in the middle of an answer."""


class Dialect(Protocol):
    """How one protocol writes a call and reads an answer."""

    name: str

    def call(self, settings: ModelGenerator, key: str | None, prompt: str) -> Call: ...

    def read(self, body: bytes) -> Answer | None:
        """Return the answer in one piece, None where it is none."""

    def read_stream(self, body: bytes) -> Answer: ...


class _Again(Exception):
    """Worth another try. `at` is when, in Unix seconds, where the endpoint said so."""

    def __init__(self, reason: str, at: float | None = None, *, limited: bool = False) -> None:
        super().__init__(reason)
        self.at = at
        self.limited = limited


class Model:
    """A generator that asks a model."""

    def __init__(
        self,
        dialect: Dialect,
        settings: ModelGenerator,
        *,
        prompt: Path | None,
        purse: Purse,
        clock: Clock,
        run_sync: RunSync,
    ) -> None:
        self._dialect = dialect
        self._settings = settings
        self._prompt = prompt
        self._purse = purse
        self._clock = clock
        self._run_sync = run_sync

    async def generate(self, request: Request) -> Generated:
        settings, name = self._settings, self._dialect.name
        if settings.model is None:
            raise GeneratorFailed(f"no model is set: give factory.{name}.model")
        key = await self._run_sync(_key, settings)
        prompt = await self._run_sync(render, request, self._prompt)
        answer = await self._ask(self._dialect.call(settings, key, prompt), prompt)
        if answer.refusal is not None:
            raise GeneratorFailed(f"{name} refused: {answer.refusal[:300]}")
        found = candidates.split(answer.text, whole=answer.ended)
        if not found and not _NONE.fullmatch(answer.text):
            ended = "" if answer.ended else " and broke off"
            raise GeneratorFailed(f"the answer held no spec{ended}: {answer.text[:200]!r}")
        return Generated(found[: request.wanted])

    async def _ask(self, call: Call, prompt: str) -> Answer:
        for attempt in range(1, self._settings.attempts + 1):
            try:
                return await self._once(call, prompt)
            except _Again as again:
                now = self._clock.wall()
                wait = max(0.0, again.at - now) if again.at is not None else 2.0 ** (attempt - 1)
                at = again.at
                if at is None and again.limited:
                    at = now + LIMITED
                if attempt == self._settings.attempts or wait > SHORT_WAIT:
                    raise GeneratorFailed(f"{self._dialect.name} {again}", at) from again
                await trio.sleep(wait)
        raise GeneratorFailed(f"{self._dialect.name}: no attempt was allowed")

    async def _once(self, call: Call, prompt: str) -> Answer:
        """Make one call within the budget: what it may cost at most is set aside before it.

        A token stands for at least one byte, so that the bytes of the prompt are its most tokens.
        Where nobody says what a call used, and it may have been worked on, all of it stays spent.
        """
        settings, name = self._settings, self._dialect.name
        most_in = len(prompt.encode()) + _OVERHEAD
        tokens, cost = most_in + settings.max_tokens, self._cost(most_in, settings.max_tokens)
        refusal = await self._purse.reserve(name, tokens, cost)
        if refusal is not None:
            raise GeneratorFailed(refusal)
        try:
            reply = await exchange(
                "POST",
                base(settings.base_url) + call.path,
                timeout=settings.timeout,
                limit=endpoint.ANSWER_LIMIT,
                headers={"accept-encoding": "identity", **call.headers},
                json=call.body,
            )
        except Unreachable as error:
            if error.sent:
                raise GeneratorFailed(f"{name} {error}") from error
            await self._purse.give_back(name, tokens, cost)
            raise _Again(str(error)) from error
        if reply.status != 200:
            await self._purse.give_back(name, tokens, cost)
            raise self._failure(reply)
        answer = await self._run_sync(self._read, reply)
        if reply.broken is None and answer.tokens_in is not None and answer.tokens_out is not None:
            used, paid = (
                answer.tokens_in + answer.tokens_out,
                self._cost(answer.tokens_in, answer.tokens_out),
            )
            await self._purse.give_back(name, tokens - used, cost - paid)
        if answer.error is not None and not answer.text:
            raise _Again(f"says: {answer.error[:300]}")
        return answer

    def _cost(self, tokens_in: int, tokens_out: int) -> float:
        settings = self._settings
        return (tokens_in * settings.price_in + tokens_out * settings.price_out) / 1_000_000

    def _read(self, reply: Reply) -> Answer:
        streamed = "text/event-stream" in reply.headers.get("content-type", "")
        if streamed:
            answer = self._dialect.read_stream(reply.body)
            if reply.broken is None:
                return answer
            if answer.text:
                return Answer(answer.text, False)
        elif reply.broken is None:
            whole = self._dialect.read(reply.body)
            if whole is not None:
                return whole
        what = reply.broken or f"is not one of this protocol: {reply.body[:200]!r}"
        raise GeneratorFailed(f"{self._dialect.name}: the answer {what}")

    def _failure(self, reply: Reply) -> Exception:
        said = endpoint.text_of(endpoint.pick(endpoint.load(reply.body), "error", "message"))
        shown = said[:300] or reply.body[:200].decode("utf-8", "replace")
        reason = f"answered {reply.status}: {shown}" if shown else f"answered {reply.status}"
        if reply.status == 429:
            return _Again(
                reason, endpoint.retry_after(reply.headers, self._clock.wall()), limited=True
            )
        if reply.status in _BUSY:
            return _Again(reason, endpoint.retry_after(reply.headers, self._clock.wall()))
        return GeneratorFailed(f"{self._dialect.name} {reason}")


def base(url: str) -> str:
    """Return an address without what every path brings itself."""
    return url.rstrip("/").removesuffix("/v1")


def _key(settings: ModelGenerator) -> str | None:
    """Return the key; None where none is set (an endpoint of one's own may want none)."""
    if settings.key_file is None:
        return os.environ.get(settings.key_env, "").strip() or None
    try:
        return settings.key_file.read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise GeneratorFailed(f"key file {settings.key_file}: cannot be read: {error}") from error
