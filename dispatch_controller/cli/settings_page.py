"""docs/settings.md, made from the model: `dispatch-controller config --markdown`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from dispatch_controller.executors import SHIPPED, ApiMode, Executor
from dispatch_controller.settings import Settings

_HEAD = """\
# Settings

Made from the program by `dispatch-controller config --markdown`; do not edit by hand.

A setting is looked for on the command line (`--home`, `--host`, `--port`), in the environment, in
`dispatch.toml` in DISPATCH_HOME, and then has the default given here. All are checked at start, all
problems are told at once, and a name that is no setting is refused.
`dispatch-controller config` prints what is in force and where each value came from.

In the environment a name is upper case, starts with `DISPATCH_`, and has `__` where the file has a
table: `[loops.reaper] interval = 60` is `DISPATCH_LOOPS__REAPER__INTERVAL=60`. Lists and tables are
JSON there. `CONTROLLER_PORT` is `port`. An empty variable counts as not set. If other programs use
names that start with `DISPATCH_`, list those in `other_variables`.

Paths are absolute or start with `~/`. Times are in seconds.

| setting | default | meaning |
| --- | --- | --- |
"""

_EXECUTORS = """
## Executors

`[executors.NAME]` adds an agent program, or changes one that is shipped: what is given is laid over
it. Environment variables of an agent (`env`, `env_files`) belong in the file, where their names
keep their case.

| setting | default | meaning |
| --- | --- | --- |
"""

_EXAMPLE = """
An agent of one's own, with a second way to its model after a rate limit:

```toml
[executors.house-agent]
argv = ["house-agent", "--spec", "{spec}"]
rate_limit = "(?i)too many requests"

[executors.house-agent.modes.direct]
fallback = "proxy"

[executors.house-agent.modes.proxy]
env = { BASE_URL = "https://models.example.net" }
env_files = { API_KEY = "~/.config/house-agent/key" }
```

Shipped:

| executor | command | standard input |
| --- | --- | --- |
"""


def settings_page() -> str:
    """Return the page, ending in a newline."""
    rows = [*_rows(Settings(home=Path("/HOME")), ""), ""]
    executor = [
        *_fields(Executor, "executors.NAME.", leave="modes"),
        *_fields(ApiMode, "executors.NAME.modes.API_MODE."),
        "",
    ]
    shipped = [_shipped(name) for name in SHIPPED]
    return (
        _HEAD + "\n".join(rows) + _EXECUTORS + "\n".join(executor) + _EXAMPLE + "\n".join(shipped)
    ) + "\n"


def _rows(model: BaseModel, prefix: str) -> Iterator[str]:
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _rows(value, f"{prefix}{name}.")
        elif name != "executors":
            default = info.get_default()
            # What is made from the home says its default in its description.
            shown = "" if info.default_factory or info.is_required() else _shown(default)
            if name in ("interval", "enabled", "base_url", "key_env"):
                shown = _shown(value)
            yield _row(prefix + name, shown, info.description)


def _fields(model: type[BaseModel], prefix: str, leave: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        if name != leave:
            yield _row(prefix + name, _shown(info.get_default()), info.description)


def _row(name: str, shown: str, description: str | None) -> str:
    return f"| `{name}` | {shown} | {description} |".replace("|  |", "| |")


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, Path):
        value = str(value)
    return f"`{json.dumps(value)}`"


def _shipped(name: str) -> str:
    shipped = SHIPPED[name]
    if "same_as" in shipped:
        return f"| {name} | as {shipped['same_as']} | |"
    standard_input = "spec.md" if shipped.get("stdin") else "closed"
    return f"| {name} | `{' '.join(shipped['argv'])}` | {standard_input} |"
