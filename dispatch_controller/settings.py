"""Settings: frozen, checked once, all problems at once (operations.md, "Settings").

`load_settings` reads command line, environment and `<home>/dispatch.toml`, in that order of
precedence, and the files that settings name. Nothing is read at import, and building `Settings`
directly reads nothing at all: what is not given is the default.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from dispatch_controller import settings_sources
from dispatch_controller.executors import Executor, with_shipped
from dispatch_controller.settings_sources import Source

HIDDEN = "(hidden)"

_SECRET_NAME = re.compile(
    r"(?i)(api_?key|token|secret|passw(or)?d|passphrase|authorization|cookie|credential|webhook_url"
    r"|private_?key)$"
)


def secret_name(name: str) -> bool:
    """Whether something of that name (a setting, a variable, a log key) is not to be shown."""
    return _SECRET_NAME.search(name.replace("-", "_")) is not None


class SettingsError(Exception):
    """The settings cannot be used. `problems` holds all of them, one sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def _full_path(path: Path) -> Path:
    path = path.expanduser()
    if not path.is_absolute():
        raise ValueError("write an absolute path, or one that starts with ~/")
    return path


FullPath = Annotated[Path, AfterValidator(_full_path)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


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


Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Settings(BaseSettings):
    """Everything that can be set. Times are seconds; paths are absolute once loaded."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    home: FullPath = Field(description="folder of dispatch.db, nodes.json, projects.json, logs/")
    specs: FullPath = Field(
        default_factory=lambda data: data["home"] / "specs",
        description="folder of the task specs, one folder a project; default `<home>/specs`",
    )
    projects: FullPath = Field(
        default_factory=lambda data: data["home"] / "projects",
        description="folder that a relative repo_local of projects.json counts from; "
        "default `<home>/projects`",
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="address that HTTP listens on")
    port: int = Field(
        default=8080, ge=0, le=65535, description="port that HTTP listens on; 0 takes a free one"
    )
    api_token: SecretStr | None = Field(
        default=None,
        description="bearer token; required where host is not a loopback address",
        validate_default=True,
    )
    api_token_file: FullPath | None = Field(default=None, description="file that holds api_token")
    legacy_worker_networks: tuple[Network, ...] = Field(
        default=(), description="networks whose workers may report without a token"
    )
    tls_certificate: FullPath | None = Field(default=None, description="certificate chain (PEM)")
    tls_key: FullPath | None = Field(
        default=None, description="key of tls_certificate (PEM)", validate_default=True
    )
    grace: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=30, description="seconds that steps in flight get at shutdown"
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Lower] = Field(
        default="info", description="least severity that is logged: debug, info, warning or error"
    )
    loops: Loops = Field(default=Loops(), description="the seven loops")
    ssh: Ssh = Field(default=Ssh(), description="SSH")
    retry: Retry = Field(default=Retry(), description="back-off of failed tasks")
    stuck_after: Seconds = Field(
        default=1800, description="seconds without any progress after which a task is ended"
    )
    task_wrapper: str = Field(
        default="own", description='"own", or the absolute path of a task-wrapper.sh on every node'
    )
    resume: Literal["fresh", "continue"] = Field(
        default="fresh",
        description="fresh, or continue: a retry starts from what the last attempt left",
    )
    executors: dict[str, Executor] = Field(
        default_factory=dict, validate_default=True, description="agent programs by name"
    )
    webhook_url: SecretStr | None = Field(
        default=None, description="http(s) address that alerts are posted to as JSON"
    )

    other_variables: tuple[str, ...] = Field(
        default=(), description="names that start with DISPATCH_ and belong to other programs"
    )

    _sources: tuple[Source, ...] = PrivateAttr(())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @property
    def loopback(self) -> bool:
        """Whether only this machine's users can reach the HTTP address."""
        return is_loopback(self.host)

    def secrets(self) -> list[str]:
        """Return the secret values themselves, for those who must keep them out of sight."""
        hidden = [value for value in (self.api_token, self.webhook_url) if value is not None]
        return [value.get_secret_value() for value in hidden] + [
            value
            for executor in self.executors.values()
            for mode in executor.modes.values()
            for name, value in mode.env.items()
            if secret_name(name)
        ]

    @field_validator("executors", mode="before")
    @classmethod
    def _shipped_executors(cls, value: object) -> object:
        return with_shipped(value) if isinstance(value, Mapping) else value

    @field_validator("executors")
    @classmethod
    def _known_executors(cls, executors: dict[str, Executor]) -> dict[str, Executor]:
        for name, executor in executors.items():
            other = executor.same_as
            if other is not None and (other not in executors or executors[other].same_as):
                raise ValueError(f"{name}: same_as: {other} is not an executor with its own argv")
        return executors

    @field_validator("task_wrapper")
    @classmethod
    def _own_or_path(cls, value: str) -> str:
        if value != "own" and not value.startswith(("/", "~/")):
            raise ValueError('write "own", or an absolute path on the nodes')
        return value

    @field_validator("webhook_url")
    @classmethod
    def _http_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not re.match(r"https?://[^\s/]+", value.get_secret_value()):
            raise ValueError("write an address that starts with http:// or https://")
        return value

    @field_validator("api_token")
    @classmethod
    def _token_where_reachable(
        cls, value: SecretStr | None, info: ValidationInfo
    ) -> SecretStr | None:
        host = info.data.get("host", "127.0.0.1")
        if value is None and not is_loopback(host):
            raise ValueError(
                f"host {host} is reachable from other machines, so a token is required: "
                "set DISPATCH_API_TOKEN or api_token_file, or listen on 127.0.0.1"
            )
        if value and not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("must be printable ASCII characters without spaces")
        return value

    @field_validator("tls_key")
    @classmethod
    def _pair(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if (value is None) != (info.data.get("tls_certificate", value) is None):
            raise ValueError("set both tls_certificate and tls_key, or none")
        return value


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or address, without brackets) is this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(
    home: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings in force.

    `home` and `overrides` (setting to value) are what the command line said; `environ` is the
    process's unless given. Raises SettingsError with every problem found.
    """
    environ = os.environ if environ is None else environ
    flags = dict(overrides or {})
    if home is not None:
        root, origin = settings_sources.absolute(home), "command line"
    else:
        root, origin = settings_sources.default_home(environ)
    file, file_problems = settings_sources.read_file(root / "dispatch.toml")
    others = file.data.get("other_variables", ())
    environment, problems = settings_sources.read_environment(
        Settings, {n: v for n, v in environ.items() if n not in others}, _did_you_mean
    )
    sources = [Source(origin, {"home": root}), Source("command line", flags), environment, file]
    data = settings_sources.merge([source.data for source in sources])
    problems += file_problems
    token, token_problems = _token_from_file(data)
    sources += token
    problems += token_problems
    data = settings_sources.merge([source.data for source in sources])
    settings: Settings | None = None
    try:
        settings = Settings(**data)
    except ValidationError as error:
        problems += _explain(error, sources, data)
    if settings is not None:
        problems += _missing_files(settings, sources)
    if problems or settings is None:
        raise SettingsError(problems)
    settings._sources = tuple(sources)
    return settings


def _token_from_file(data: Mapping[str, Any]) -> tuple[list[Source], list[str]]:
    name = data.get("api_token_file")
    if not isinstance(name, str):
        return [], []
    if data.get("api_token"):
        return [], ["api_token and api_token_file are both set: set one"]
    path = Path(name).expanduser()
    try:
        token = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        return [], [f"api_token_file {path}: cannot be read: {error}"]
    if not token:
        return [], [f"api_token_file {path}: is empty"]
    return [Source(f"file {path}", {"api_token": token})], []


def _missing_files(settings: Settings, sources: Sequence[Source]) -> list[str]:
    named: list[tuple[str, Path | None]] = [
        ("tls_certificate", settings.tls_certificate),
        ("tls_key", settings.tls_key),
        *((f"ssh.identity_files.{n}", path) for n, path in enumerate(settings.ssh.identity_files)),
    ]
    return [
        f"{_where(name.split('.'), sources)}: {name}: {path} is no readable file"
        for name, path in named
        if path is not None and not (path.is_file() and os.access(path, os.R_OK))
    ]


def _where(path: Sequence[str], sources: Sequence[Source]) -> str:
    places = (source.where(path) for source in sources)
    return next((place for place in places if place is not None), "default")


def _explain(
    error: ValidationError, sources: Sequence[Source], data: Mapping[str, Any]
) -> Iterator[str]:
    for detail in error.errors(include_url=False):
        path = [str(part) for part in detail["loc"]]
        name = ".".join(path)
        message = detail["msg"].removeprefix("Value error, ")
        if not path:
            yield message
            continue
        where = _where(path, sources)
        if detail["type"] == "extra_forbidden":
            yield f"{where}: {name}: no such setting{_did_you_mean(name)}"
            continue
        value: Any = data
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, str) and detail["type"] in ("tuple_type", "dict_type", "model_type"):
            message += '; in the environment write JSON, such as ["a", "b"] or {"a": "b"}'
        shown = "" if value is None or any(map(secret_name, path)) else f" (it is {value!r})"
        yield f"{where}: {name}: {message}{shown}"


def _did_you_mean(name: str) -> str:
    """Return ` (did you mean ...?)` where a setting of a like name exists, else nothing."""
    known = {origin.name for origin in origins(Settings(home=Path("/")))}
    known |= {name.rpartition(".")[0] for name in known} - {""}
    like = difflib.get_close_matches(name, sorted(known), 1, 0.75)
    return f" (did you mean {like[0]}?)" if like else ""


@dataclass(frozen=True, slots=True)
class Origin:
    """One setting in force."""

    name: str
    value: Any
    """JSON-able; HIDDEN for a secret that is set."""
    source: str
    description: str


def origins(settings: Settings) -> list[Origin]:
    """Return every setting with its value, where that came from, and what it means."""
    return list(_flatten(settings, [], settings._sources))


def _flatten(model: BaseModel, path: list[str], sources: Sequence[Source]) -> Iterator[Origin]:
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        here = [*path, name]
        nested = {"": value} if isinstance(value, BaseModel) else value
        if isinstance(nested, dict) and any(isinstance(v, BaseModel) for v in nested.values()):
            for key, inner in nested.items():
                yield from _flatten(inner, [*here, key] if key else here, sources)
            continue
        plain = model.model_dump(mode="json", include={name})[name]
        if isinstance(plain, dict):
            plain = {k: HIDDEN if secret_name(k) else v for k, v in plain.items()}
        if isinstance(value, SecretStr):
            plain = HIDDEN
        yield Origin(".".join(here), plain, _where(here, sources), info.description or "")
