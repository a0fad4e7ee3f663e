"""What people are told of settings: each value with its place, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from dispatch_controller.settings_sources import Source

HIDDEN = "(hidden)"

_SECRET_NAME = re.compile(
    r"(?i)(api_?key|token|secret|passw(or)?d|passphrase|authorization|cookie|credential|webhook_url"
    r"|private_?key)$"
)


def secret_name(name: str) -> bool:
    """Whether something of that name (a setting, a variable, a log key) is not to be shown."""
    return _SECRET_NAME.search(name.replace("-", "_")) is not None


def where(path: Sequence[str], sources: Sequence[Source]) -> str:
    """Return where the value in force of the setting at `path` was found."""
    places = (source.where(path) for source in sources)
    return next((place for place in places if place is not None), "default")


def explain(
    error: ValidationError,
    sources: Sequence[Source],
    data: Mapping[str, Any],
    hint: Callable[[str], str],
) -> Iterator[str]:
    """Give every problem that validation found: where, which setting, what is wrong with it.

    `hint` is given a name that is no setting and returns what to add to the message.
    """
    for detail in error.errors(include_url=False):
        path = [str(part) for part in detail["loc"]]
        name = ".".join(path)
        message = detail["msg"].removeprefix("Value error, ")
        if not path:
            yield message
            continue
        place = where(path, sources)
        if detail["type"] == "extra_forbidden":
            yield f"{place}: {name}: no such setting{hint(name)}"
            continue
        value: Any = data
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, str) and detail["type"] in ("tuple_type", "dict_type", "model_type"):
            message += '; in the environment write JSON, such as ["a", "b"] or {"a": "b"}'
        # A table may hold secrets further down.
        plain = isinstance(value, str | int | float) and not any(map(secret_name, path))
        shown = f" (it is {value!r})" if plain else ""
        yield f"{place}: {name}: {message}{shown}"


@dataclass(frozen=True, slots=True)
class Origin:
    """One setting in force."""

    name: str
    value: Any
    """JSON-able; HIDDEN for a secret that is set."""
    source: str
    description: str


def flatten(model: BaseModel, path: list[str], sources: Sequence[Source]) -> Iterator[Origin]:
    """Give every setting of `model`, tables taken apart, secrets hidden."""
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        here = [*path, name]
        nested = {"": value} if isinstance(value, BaseModel) else value
        if isinstance(nested, dict) and any(isinstance(v, BaseModel) for v in nested.values()):
            for key, inner in nested.items():
                yield from flatten(inner, [*here, key] if key else here, sources)
            continue
        plain = model.model_dump(mode="json", include={name})[name]
        if isinstance(plain, dict):
            plain = {k: HIDDEN if secret_name(k) else v for k, v in plain.items()}
        if isinstance(value, SecretStr):
            plain = HIDDEN
        yield Origin(".".join(here), plain, where(here, sources), info.description or "")
