"""Where settings come from: command line, environment, dispatch.toml; and where each one was found.

Reads only; what the values mean is checked by the model in settings.py.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource

PREFIX = "DISPATCH_"
DELIMITER = "__"
PORT_NAME = "CONTROLLER_PORT"
"""The one kept name without the prefix; it is `port`."""


@dataclass(frozen=True, slots=True)
class Source:
    """Settings found in one place. `names` maps a dotted setting to how it is written there."""

    label: str
    data: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)

    def where(self, path: Sequence[str]) -> str | None:
        """Return where this source says something of the setting at `path`, or None."""
        found: Any = self.data
        for key in path:
            if not isinstance(found, Mapping):
                break
            if key not in found:
                return None
            found = found[key]
        dotted = ".".join(path)
        for setting in sorted(self.names, key=len, reverse=True):
            # The name of the setting itself, of a table around it, or of something in it.
            if f"{dotted}.".startswith(f"{setting}.") or setting.startswith(f"{dotted}."):
                return f"{self.label} {self.names[setting]}"
        return self.label


class _Environment(EnvSettingsSource):
    """pydantic-settings' reading of the environment, of a given mapping, judged by the model.

    A value that is not JSON where JSON is needed stays text, so that validation reports it by name
    together with all other problems.
    """

    def __init__(self, model: type[BaseSettings], environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(
            model,
            case_sensitive=False,
            env_prefix=PREFIX,
            env_nested_delimiter=DELIMITER,
            env_ignore_empty=True,
        )

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._environ.items() if value}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: object) -> object:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def read_environment(
    model: type[BaseSettings], environ: Mapping[str, str], hint: Callable[[str], str]
) -> tuple[Source, list[str]]:
    """Return what the environment says, and the problems: names that are no setting.

    An empty variable counts as not set. Names are upper case, `__` separates levels. `hint` is
    given a dotted name that is no setting and returns what to add to the message.
    """
    problems: list[str] = []
    variables = {
        name: value for name, value in environ.items() if name.startswith(PREFIX) and value
    }
    port = environ.get(PORT_NAME)
    other = variables.get(f"{PREFIX}PORT")
    if port and other and port != other:
        problems.append(f"environment: {PORT_NAME}={port} and {PREFIX}PORT={other}: unset one")
    if port:
        variables[f"{PREFIX}PORT"] = port
    data = _Environment(model, variables)()
    names: dict[str, str] = {}
    for name in sorted(variables):
        path = name.removeprefix(PREFIX).lower().split(DELIMITER)
        if not _present(data, path):
            told = hint(".".join(path)) or "; if it is another program's: add it to other_variables"
            problems.append(f"environment {name}: no such setting{told}")
        elif path[0] == "executors" and {"env", "env_files"} & set(path[3:-1]):
            # Names lose their case here, and those of environment variables must not.
            problems.append(f"environment {name}: set it in dispatch.toml, or all as JSON")
        names[".".join(path)] = PORT_NAME if port and path == ["port"] else name
    return Source("environment", data, names), problems


def _present(data: Mapping[str, Any], path: Sequence[str]) -> bool:
    found: Any = data
    for key in path:
        if not isinstance(found, Mapping) or key not in found:
            return False
        found = found[key]
    return True


def read_file(path: Path) -> tuple[Source, list[str]]:
    """Return what dispatch.toml says and the problems with the file; no file says nothing."""
    source = Source(str(path), {})
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return source, []
    except (OSError, UnicodeDecodeError) as error:
        return source, [f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"]
    except tomllib.TOMLDecodeError as error:
        return source, [f"{path}: not TOML: {error}"]
    if "home" in data:
        return source, [f"{path}: home: this file lies in it; set DISPATCH_HOME or --home instead"]
    return Source(str(path), data), []


def default_home(environ: Mapping[str, str]) -> tuple[Path, str]:
    """Return the home when no option names one, and where that comes from.

    DISPATCH_HOME; else ~/Downloads/dispatch where that exists (what the programs replaced by this
    one used); else ~/dispatch-home.
    """
    named = environ.get("DISPATCH_HOME")
    if named:
        return absolute(named), "environment DISPATCH_HOME"
    former = Path("~/Downloads/dispatch").expanduser()
    return (former if former.is_dir() else Path("~/dispatch-home").expanduser()), "default"


def absolute(path: str | Path) -> Path:
    """Return `path` with ~ expanded, made absolute from the current folder."""
    return Path(os.path.normpath(Path(path).expanduser().absolute()))


def merge(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the layers as one, earlier ones winning, tables merged key by key."""
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        for key, value in layer.items():
            below = merged.get(key)
            if isinstance(value, Mapping) and isinstance(below, Mapping):
                merged[key] = merge([value, below])
            else:
                merged[key] = value
    return merged
