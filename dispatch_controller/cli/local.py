"""Commands that need no running controller: run, demo, config."""

from __future__ import annotations

import gc
import json
from typing import Annotated, Any

import typer

from dispatch_controller.cli.options import HomeOption, JsonOption
from dispatch_controller.cli.output import cell, print_json, print_table
from dispatch_controller.cli.settings_page import settings_page
from dispatch_controller.settings import load_settings, origins


def run(
    home: HomeOption = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="H", help="Address that HTTP listens on.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            metavar="N",
            min=0,
            max=65535,
            help="Port that HTTP listens on; 0 takes a free one.",
        ),
    ] = None,
) -> None:
    """Run the controller until SIGTERM or Ctrl-C."""
    given: dict[str, Any] = {"host": host, "port": port}
    settings = load_settings(
        home, {name: value for name, value in given.items() if value is not None}
    )
    # Imported here: the whole of the controller, which no other command needs.
    from dispatch_controller.app import run as run_controller

    status = run_controller(settings)
    gc.freeze()  # else the interpreter's end looks through all that was imported: half a second
    raise typer.Exit(status)


def demo() -> None:
    """Show it at work: a temporary home, three nodes on this machine, a dozen tasks."""
    from dispatch_controller.demo import run as run_demo

    raise typer.Exit(run_demo())


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Which ones; all without.")
    ] = None,
) -> None:
    """Measure what the controller costs here, beside GNU parallel and plain SSH."""
    from dispatch_controller.bench import MEASUREMENTS
    from dispatch_controller.bench import run as run_bench

    unknown = set(names or ()) - set(MEASUREMENTS)
    if unknown:
        raise typer.BadParameter(
            f"no measurement {', '.join(sorted(unknown))}; there are {', '.join(MEASUREMENTS)}"
        )
    raise typer.Exit(run_bench(names or ()))


def config(
    as_json: JsonOption = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", hidden=True, help="Print docs/settings.md.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Print the settings in force and where each value came from; secrets are hidden."""
    if markdown:
        typer.echo(settings_page(), nl=False)
        return
    rows = origins(load_settings(home))
    if as_json:
        print_json(
            [
                {
                    "name": row.name,
                    "value": row.value,
                    "source": row.source,
                    "description": row.description,
                }
                for row in rows
            ]
        )
        return
    print_table(
        ["setting", "value", "from", "meaning"],
        (
            [
                cell(row.name, "bold"),
                cell(_written(row.value)),
                cell(row.source, "dim" if row.source == "default" else "cyan"),
                cell(row.description, "dim"),
            ]
            for row in rows
        ),
    )


def _written(value: object) -> str | None:
    """Return a value as dispatch.toml would have it, near enough to be recognised."""
    return value if isinstance(value, str) or value is None else json.dumps(value)
