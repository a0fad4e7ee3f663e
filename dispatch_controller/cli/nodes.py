"""Commands about nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from dispatch_controller.cli.client import connect, node_path
from dispatch_controller.cli.options import HomeOption, JsonOption, UrlOption
from dispatch_controller.cli.output import cell, print_json, print_table, stdout, time_cell

app = typer.Typer(
    help="List nodes; take one out of use, or back into it.", invoke_without_command=True
)

NodeName = Annotated[str, typer.Argument(metavar="NAME", help="Name of a node.")]


@app.callback()
def nodes(
    context: typer.Context,
    as_json: JsonOption = False,
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """List nodes; take one out of use, or back into it."""
    context.obj = (as_json, home, url)
    if context.invoked_subcommand is None:
        _list(as_json, home, url)


@app.command("list")
def list_nodes(
    context: typer.Context,
    as_json: JsonOption = False,
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """List nodes with their slots and health."""
    _list(*_given(context, as_json, home, url))


@app.command()
def enable(
    context: typer.Context,
    name: NodeName,
    as_json: JsonOption = False,
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """Let a node take tasks again."""
    _switch(name, "enable", *_given(context, as_json, home, url))


@app.command()
def disable(
    context: typer.Context,
    name: NodeName,
    as_json: JsonOption = False,
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """Give a node no more tasks; what runs there goes on."""
    _switch(name, "disable", *_given(context, as_json, home, url))


def _given(
    context: typer.Context, as_json: bool, home: Path | None, url: str | None
) -> tuple[bool, Path | None, str | None]:
    """Return the options, whether they stood before or after the subcommand."""
    before: tuple[bool, Path | None, str | None] = context.obj
    return as_json or before[0], home or before[1], url or before[2]


def _list(as_json: bool, home: Path | None, url: str | None) -> None:
    with connect(home, url) as client:
        rows: list[dict[str, Any]] = client.get("nodes")
    if as_json:
        print_json(rows)
        return
    print_table(
        ["node", "state", "busy", "slots", "executor", "api", "prio", "reached by", "seen", ""],
        (
            [
                cell(row["name"], "bold"),
                state_cell(row),
                cell(row["claimed"] + row["running"]),
                cell(row["slots"]),
                cell(row["executor"]),
                cell(row["api_mode"]),
                cell(row["priority"]),
                cell(reached_by(row)),
                time_cell(row["last_seen"]),
                cell(row["last_error"], "red"),
            ]
            for row in rows
        ),
    )


def _switch(name: str, verb: str, as_json: bool, home: Path | None, url: str | None) -> None:
    with connect(home, url) as client:
        row = client.post(node_path(name, verb))
    if as_json:
        print_json(row)
    else:
        stdout().print(cell(f"{name}: {verb}d"))


def reached_by(row: dict[str, Any]) -> str:
    """Return what a node is reached by now: its worker before SSH, SSH before this machine."""
    if row.get("way") == "worker":
        return row.get("worker_url") or "polling worker"
    return row["ssh_host"] or "this machine"


def state_cell(row: dict[str, Any]) -> Text:
    """Return a node's state in a word: the strongest reason why it takes nothing comes first."""
    if not row.get("enabled", True):
        return cell("disabled", "dim")
    if row.get("quarantined"):
        return cell("quarantined", "red")
    if not row.get("reachable", True):
        return cell("unreachable", "red")
    return cell("full", "yellow") if row.get("free") == 0 else cell("ready", "green")
