"""The command restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dispatch_controller.cli.doctor import root_of
from dispatch_controller.cli.exit_codes import ExitCode, Failure
from dispatch_controller.cli.options import HomeOption
from dispatch_controller.doctor import database
from dispatch_controller.home import Home


def restore(
    snapshot: Annotated[
        Path | None,
        typer.Argument(
            metavar="SNAPSHOT", help="File, or its name in snapshots/; else the newest."
        ),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Put a snapshot in the place of dispatch.db, which is kept. Only while no controller runs."""
    place = Home(root_of(home))
    there = database.snapshots(place)
    if snapshot is None:
        if not there:
            raise Failure(f"there is no snapshot in {place.snapshots}", ExitCode.CONFIG)
        chosen = there[0]
    else:
        chosen = snapshot if snapshot.is_file() else place.snapshots / snapshot
        if not chosen.is_file():
            names = ", ".join(path.name for path in there) or "none"
            raise Failure(f"no snapshot {snapshot}; in {place.snapshots}: {names}")
    try:
        kept = database.restore(place, chosen)
    except database.NotRestored as error:
        raise Failure(str(error), ExitCode.CONFIG) from error
    typer.echo(f"{place.database} is now {chosen}")
    if kept is not None:
        typer.echo(f"the former database is kept as {kept}")
