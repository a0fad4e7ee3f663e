"""Settings: frozen, checked once, all problems at once (operations.md, "Settings").

`load_settings` reads command line, environment and `<home>/dispatch.toml`, in that order of
precedence, and the files that settings name. Nothing is read at import, and building `Settings`
directly reads nothing at all: what is not given is the default.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from dispatch_controller import settings_sources
from dispatch_controller.executors import Executor, with_shipped
from dispatch_controller.settings_report import Origin, explain, flatten, secret_name, where
from dispatch_controller.settings_sections import (
    Factory,
    FullPath,
    Loops,
    Lower,
    Network,
    Retry,
    Seconds,
    Ssh,
    is_loopback,
)
from dispatch_controller.settings_sources import Source


class SettingsError(Exception):
    """The settings cannot be used. `problems` holds all of them, one sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


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
    factory: Factory = Field(default=Factory(), description="what feeds the queue")
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
    named = file.data.get("other_variables")
    others = named if isinstance(named, list) else []
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
        problems += explain(error, sources, data, _did_you_mean)
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
        f"{where(name.split('.'), sources)}: {name}: {path} is no readable file"
        for name, path in named
        if path is not None and not (path.is_file() and os.access(path, os.R_OK))
    ]


def _did_you_mean(name: str) -> str:
    """Return ` (did you mean ...?)` where a setting of a like name exists, else nothing."""
    known = {origin.name for origin in origins(Settings(home=Path("/")))}
    known |= {name.rpartition(".")[0] for name in known} - {""}
    like = difflib.get_close_matches(name, sorted(known), 1, 0.75)
    return f" (did you mean {like[0]}?)" if like else ""


def origins(settings: Settings) -> list[Origin]:
    """Return every setting with its value, where that came from, and what it means."""
    return list(flatten(settings, [], settings._sources))
