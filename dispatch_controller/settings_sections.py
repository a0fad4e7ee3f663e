"""The tables of the settings, and the types that settings share."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

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
