"""Executors: how each agent program is called without a person at the keyboard.

The shipped commands are data, laid under what the settings say; adding an executor is a few lines
of settings. Placeholders in `argv` are those of docs/wrapper-protocol.md, "Order".

Where the option names come from (each program's own documentation):

- claude: code.claude.com/docs/en/cli-reference (`-p`, `--permission-mode`); the prompt is read from
  standard input. It refuses `bypassPermissions` as root.
- codex: developers.openai.com/codex/noninteractive (`exec`, `--sandbox workspace-write`,
  `--skip-git-repo-check`, `-` reads the prompt from standard input)
- opencode: opencode.ai/docs/cli and opencode.ai/docs/permissions (`run`, `--auto`; standard input
  is added to the message)
- aider: aider.chat/docs/scripting.html, aider.chat/docs/config/options.html (`--message-file`,
  `--yes-always`, `--no-check-update`)
- mini-swe-agent: mini-swe-agent.com/latest/usage/mini (`--task`, `--yolo`, `--exit-immediately`)
- gemini: geminicli.com/docs/cli/headless (without a terminal it takes standard input and ends),
  `--approval-mode`; an untrusted folder would set that back to asking, hence the variable
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dispatch_controller.model import ExecutorCommand, ExecutorMode

MAX_HOPS = 2
"""How often one attempt may fall back to another api_mode (nodes.md, "Agents")."""

_RATE_LIMIT = (
    r"(?i)rate.?limit(ed| exceeded| reached)|too many requests|\b429\b"
    r"|(usage|session|weekly) limit reached|quota exceeded|resource_exhausted|overloaded_error"
)
_LOGIN = (
    r"(?i)not logged in|please (run )?/?log ?in|invalid (api key|x-api-key)"
    r"|authentication_error|401 unauthorized|api key not (found|valid)"
)

SHIPPED: Mapping[str, Mapping[str, Any]] = {
    "claude": {
        "argv": ["claude", "-p", "--permission-mode", "bypassPermissions"],
        "stdin": True,
        "rate_limit": _RATE_LIMIT,
        "login": _LOGIN,
    },
    "codex": {
        "argv": ["codex", "exec", "--sandbox", "workspace-write", "--skip-git-repo-check", "-"],
        "stdin": True,
        "rate_limit": _RATE_LIMIT,
        "login": _LOGIN,
    },
    "opencode": {
        "argv": ["opencode", "run", "--auto"],
        "stdin": True,
        "rate_limit": _RATE_LIMIT,
        "login": _LOGIN,
    },
    "aider": {
        "argv": ["aider", "--yes-always", "--no-check-update", "--message-file", "{spec}"],
        "rate_limit": _RATE_LIMIT,
        "login": _LOGIN,
    },
    "mini-swe-agent": {
        "argv": ["mini-swe-agent", "--yolo", "--exit-immediately", "--task", "{prompt}"],
        "rate_limit": _RATE_LIMIT,
        "login": _LOGIN,
    },
    "gemini": {
        "argv": ["gemini", "--approval-mode", "yolo"],
        "stdin": True,
        "modes": {"direct": {"env": {"GEMINI_CLI_TRUST_WORKSPACE": "true"}}},
        "rate_limit": _RATE_LIMIT,
        "login": _LOGIN,
    },
    "shell": {"argv": ["{shell}", "-eu", "-c", "{script}"]},
    "glm": {"same_as": "opencode"},
}


class ApiMode(BaseModel):
    """How an executor reaches its model on nodes of one api_mode."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: dict[str, str] = Field(default={}, description="environment variables set for the agent")
    env_files: dict[str, str] = Field(
        default={}, description="environment variables read from files on the node: variable = path"
    )
    fallback: str | None = Field(
        default=None,
        description="api_mode to go on with after a rate limit (at most 2 hops, 30 s apart)",
    )


def _pattern(value: str | None) -> str | None:
    if value is not None:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
    return value


class Executor(BaseModel):
    """One agent program."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    argv: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(),
        description="program and arguments; placeholders {spec}, {prompt}, {script}, {shell}",
    )
    stdin: bool = Field(
        default=False, description="give spec.md as standard input, else it is closed"
    )
    modes: dict[str, ApiMode] = Field(
        default={}, description="by api_mode of the node; one not named here sets nothing"
    )
    rate_limit: str | None = Field(
        default=None, description="regular expression in the log that means: rate limited"
    )
    login: str | None = Field(
        default=None, description="regular expression in the log that means: not logged in"
    )
    same_as: str | None = Field(
        default=None, description="take everything from that executor (and give no argv here)"
    )

    _patterns = field_validator("rate_limit", "login")(_pattern)

    @model_validator(mode="after")
    def _has_a_command(self) -> Executor:
        if bool(self.argv) == bool(self.same_as):
            raise ValueError("needs either argv or same_as")
        return self


def with_shipped(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given` laid over the shipped executors, key by key; argv is replaced whole.

    An executor that is given argv drops the shipped same_as, and the other way round.
    """
    merged: dict[str, Any] = {name: dict(value) for name, value in SHIPPED.items()}
    for name, value in given.items():
        if not isinstance(value, Mapping) or name not in merged:
            merged[name] = value
            continue
        base = dict(merged[name])
        if "argv" in value:
            base.pop("same_as", None)
        if "same_as" in value:
            base = {}
        modes = value.get("modes")
        if isinstance(modes, Mapping):
            value = {**value, "modes": {**base.get("modes", {}), **modes}}
        merged[name] = {**base, **value}
    return merged


def command(executors: Mapping[str, Executor], name: str, api_mode: str) -> ExecutorCommand | None:
    """Return what a node of `api_mode` is told to run for executor `name`; None if unknown.

    `modes` starts with the node's api_mode, then follows `fallback`, at most MAX_HOPS further.
    The name stays the one asked for (`glm`, not `opencode`).
    """
    executor = executors.get(name)
    if executor is not None and executor.same_as is not None:
        executor = executors.get(executor.same_as)
    if executor is None:
        return None
    modes: list[ExecutorMode] = []
    following: str | None = api_mode
    while following is not None and len(modes) <= MAX_HOPS:
        mode = executor.modes.get(following, ApiMode())
        modes.append(ExecutorMode(following, dict(mode.env), dict(mode.env_files)))
        following = mode.fallback
    return ExecutorCommand(
        name, executor.argv, executor.stdin, tuple(modes), executor.rate_limit, executor.login
    )
