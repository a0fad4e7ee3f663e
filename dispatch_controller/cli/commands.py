"""All commands in one application."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatch_controller import __version__
from dispatch_controller.cli import (
    doctor,
    factory,
    init,
    local,
    nodes,
    restore,
    service,
    status,
    tasks,
    worker,
)

app = typer.Typer(
    name="dispatch-controller",
    help="Dispatch Markdown task specs to coding agents on your own machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def dispatch_controller(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Dispatch Markdown task specs to coding agents on your own machines."""


for command in (
    local.run,
    local.demo,
    local.bench,
    tasks.register,
    status.status,
    status.log_level,
    tasks.tasks,
    tasks.show,
    tasks.logs,
    tasks.retry,
    tasks.cancel,
):
    app.command()(command)
app.add_typer(nodes.app, name="nodes")
app.add_typer(factory.app, name="factory")
app.add_typer(service.app, name="service")
app.command()(local.config)
app.command()(doctor.doctor)
app.command()(init.init)
app.command()(restore.restore)
app.command()(worker.worker)
