"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="DIR", help="Folder of the controller (else DISPATCH_HOME, else default)."
    ),
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Address of the controller, instead of --home."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
TaskIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Task ids.")]
TaskId = Annotated[str, typer.Argument(metavar="ID", help="Task id.")]
