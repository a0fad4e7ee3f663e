"""The commands status and log-level: the running controller itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.text import Text

from dispatch_controller.cli.client import connect
from dispatch_controller.cli.options import HomeOption, JsonOption, UrlOption
from dispatch_controller.cli.output import (
    cell,
    print_json,
    print_table,
    short_duration,
    status_cell,
    stdout,
    time_cell,
)
from dispatch_controller.model import TaskStatus


def status(
    as_json: JsonOption = False,
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """Show how the controller, its loops and its nodes are."""
    with connect(home, url) as client:
        body = client.status()
    if as_json:
        print_json(body)
        return
    stdout().print(
        cell(f"dispatch-controller {body['version']}", "bold"),
        cell(f"up {short_duration(body['uptime'])}"),
    )
    counts: dict[str, int] = body["tasks"]
    print_table(
        ["tasks", ""],
        ([status_cell(state), cell(counts.get(state, 0))] for state in TaskStatus),
    )
    print_table(
        ["loop", "cycle", "last good step", "restarts", "last error"],
        (_loop(name, loop) for name, loop in body["loops"].items()),
    )
    stdout().print(f"nodes: {len(body['nodes'])}; `dispatch-controller nodes` shows them")


class Level(StrEnum):
    """The least severity that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def log_level(
    level: Annotated[Level, typer.Argument(metavar="LEVEL", help="debug, info, warning or error.")],
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """Log more or less while it runs; the next start follows the setting log_level again."""
    with connect(home, url) as client:
        client.post("log-level", {"level": level.value})
    stdout().print(cell(f"logs from {level.value} on"))


def _loop(name: str, loop: dict[str, Any]) -> list[Text]:
    return [
        cell(name, "bold"),
        cell(loop.get("cycle")),
        time_cell(loop.get("last_ok")),
        cell(loop.get("restarts")),
        cell(loop.get("last_error"), "red"),
    ]
