"""The tables of the settings, and the types that settings share."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or address, without brackets) is this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _full_path(path: Path) -> Path:
    path = path.expanduser()
    if not path.is_absolute():
        raise ValueError("write an absolute path, or one that starts with ~/")
    return path


FullPath = Annotated[Path, AfterValidator(_full_path)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Generator = Literal["gaps", "command", "anthropic", "openai"]


Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Loop(Section):
    """One of the seven loops (loops.md)."""

    interval: Seconds = Field(description="seconds from the end of a step to the next one")
    enabled: bool = Field(default=True, description="whether it runs at all")


LOOP_INTERVALS: Mapping[str, float] = {
    "scheduling": 10,
    "health_check": 15,
    "probe_workers": 30,
    "db_sync": 30,
    "reaper": 60,
    "guardian": 300,
    "factory": 60,
}
"""Seconds, as in the table of loops.md."""


def _loop(name: str) -> Loop:
    value: Loop = Field(default=Loop(interval=LOOP_INTERVALS[name]), description=f"the {name} loop")
    return value


class Loops(Section):
    """All loops by name."""

    scheduling: Loop = _loop("scheduling")
    health_check: Loop = _loop("health_check")
    probe_workers: Loop = _loop("probe_workers")
    db_sync: Loop = _loop("db_sync")
    reaper: Loop = _loop("reaper")
    guardian: Loop = _loop("guardian")
    factory: Loop = _loop("factory")

    @model_validator(mode="before")
    @classmethod
    def _own_interval(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        return {
            name: {"interval": LOOP_INTERVALS[name], **value}
            if name in LOOP_INTERVALS and isinstance(value, Mapping)
            else value
            for name, value in data.items()
        }


class Ssh(Section):
    """How SSH nodes are reached (nodes.md, "Transports")."""

    config: FullPath = Field(
        default=Path("~/.ssh/config"),
        description="OpenSSH client configuration",
        validate_default=True,
    )
    known_hosts: FullPath | None = Field(
        default=None,
        description="file of accepted host keys, instead of what ssh.config says "
        "or else ~/.ssh/known_hosts",
    )
    identity_files: tuple[FullPath, ...] = Field(
        default=(), description="private keys beside those of ssh.config and the agent"
    )
    connect_timeout: Seconds = Field(default=10, description="seconds to connect and log in")
    command_timeout: Seconds = Field(default=30, description="seconds for one command")
    transfer_timeout: Seconds = Field(default=60, description="seconds for one file transfer")
    max_channels: int = Field(
        default=8, ge=1, description="channels open at once to one node (sshd's MaxSessions is 10)"
    )


class Retry(Section):
    """Back-off of failed tasks (scheduling.md, "Retries")."""

    base: Seconds = Field(
        default=120, description="seconds before the first retry; doubles each time"
    )
    limit: Seconds = Field(default=3600, description="seconds a retry waits at most")

    @field_validator("limit")
    @classmethod
    def _above_base(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("base", 0):
            raise ValueError("must not be less than retry.base")
        return value


class CommandGenerator(Section):
    """Any program that writes specs."""

    argv: tuple[str, ...] = Field(default=(), description="program and arguments")
    timeout: Seconds = Field(default=120, description="seconds it may take")
    output_limit: int = Field(
        default=1_048_576, ge=1024, description="bytes that it may write; more ends it"
    )


class ModelGenerator(Section):
    """A model behind an HTTP endpoint."""

    base_url: str = Field(
        pattern=r"^https?://[^\s/]+", description="address that /v1/... is added to"
    )
    model: str | None = Field(default=None, description="name of the model; required to be used")
    key_env: str = Field(description="environment variable that holds the key")
    key_file: FullPath | None = Field(
        default=None, description="file that holds the key, instead of the variable"
    )
    stream: bool = Field(default=True, description="whether the answer is streamed")
    max_tokens: int = Field(default=8000, ge=1, description="tokens of one answer at most")
    timeout: Seconds = Field(default=120, description="seconds for one answer")
    attempts: int = Field(default=3, ge=1, le=10, description="tries in one cycle")
    daily_tokens: int = Field(
        default=500_000, ge=0, description="tokens, in and out, that 24 hours may cost"
    )
    daily_cost: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="money that 24 hours may cost, in the unit of the prices"
    )
    price_in: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=0, description="price of a million tokens sent"
    )
    price_out: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=0, description="price of a million tokens received"
    )


class Source(Section):
    """Where research looks."""

    kind: Literal["feed", "github", "command"] = Field(description="feed, github or command")
    url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]+",
        description="address of the feed; of the API for github, default https://api.github.com",
    )
    query: str | None = Field(default=None, description="what GitHub is searched for")
    search: Literal["repositories", "issues"] = Field(
        default="repositories", description="what kind of thing is searched for"
    )
    argv: tuple[str, ...] = Field(
        default=(), description="program that prints one item a line: title, tab, address"
    )
    projects: tuple[str, ...] = Field(
        default=(), description="projects that get its notes; none named: all of projects.json"
    )

    @model_validator(mode="after")
    def _complete(self) -> Source:
        needed = {"feed": self.url, "github": self.query, "command": self.argv}
        names = {"feed": "url", "github": "query", "command": "argv"}
        if not needed[self.kind]:
            raise ValueError(f"kind {self.kind} needs {names[self.kind]}")
        return self


class Factory(Section):
    """What feeds the queue (docs/factory.md)."""

    generator: Generator = Field(
        default="gaps", description="who writes specs: gaps, command, anthropic or openai"
    )
    dry_run: bool = Field(
        default=False, description="keep specs as drafts until a person approves them"
    )
    min_pending: int = Field(
        default=80, ge=0, description="pending tasks below which generators are asked"
    )
    per_cycle: int = Field(default=10, ge=1, description="specs made in one cycle at most")
    per_day: int = Field(
        default=20, ge=0, description="specs made for one project in 24 hours at most"
    )
    iterate_tasks: int = Field(
        default=5, ge=1, description="tasks a project must have to be iterated"
    )
    iterate_completed: Share = Field(
        default=0.7, description="part of them that must be completed, 0 to 1"
    )
    iterate_pause: Seconds = Field(
        default=3600, description="seconds between two iterations of a project"
    )
    research_interval: Seconds = Field(default=3600, description="seconds between two researches")
    step_limit: Seconds = Field(
        default=150, description="seconds that generators may take in one cycle"
    )
    check_timeout: Seconds = Field(
        default=90, description="seconds a project's own check may take in its checkout"
    )
    prompt_file: FullPath | None = Field(
        default=None, description="prompt for models, instead of the one shipped"
    )
    command: CommandGenerator = Field(default=CommandGenerator(), description="generator command")
    anthropic: ModelGenerator = Field(
        default=ModelGenerator(base_url="https://api.anthropic.com", key_env="ANTHROPIC_API_KEY"),
        description="generator anthropic",
    )
    openai: ModelGenerator = Field(
        default=ModelGenerator(base_url="https://api.openai.com", key_env="OPENAI_API_KEY"),
        description="generator openai, or anything that speaks its protocol",
    )
    sources: dict[str, Source] = Field(default={}, description="what research reads, by name")

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_its_own(cls, data: object) -> object:
        """Lay what is given of a model over that model's defaults, which the class lacks."""
        if not isinstance(data, Mapping):
            return data
        laid = dict(data)
        for name in ("anthropic", "openai"):
            given, default = data.get(name), cls.model_fields[name].default
            if isinstance(given, Mapping):
                own = {key: getattr(default, key) for key in ("base_url", "key_env")}
                laid[name] = {**own, **given}
        return laid
