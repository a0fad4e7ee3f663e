"""The command init."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from dispatch_controller.cli.doctor import root_of, run_doctor
from dispatch_controller.cli.exit_codes import ExitCode, Failure
from dispatch_controller.cli.options import HomeOption
from dispatch_controller.cli.output import clean
from dispatch_controller.first_home import (
    THIS_MACHINE,
    Wanted,
    make_home,
    node,
    projects_of,
    ssh_hosts,
    usual_executor,
)
from dispatch_controller.home import Home
from dispatch_controller.node_files import NodeEntry
from dispatch_controller.settings_sources import absolute
from dispatch_controller.spec_files import find

SLOTS = 2
"""Tasks at once on a node, where nobody says otherwise: agents are heavy."""


def init(
    nodes: Annotated[
        list[str] | None,
        typer.Option(
            "--node",
            metavar="NODE",
            help="A machine that works: `here`, a host of ~/.ssh/config, or NAME=SSH_HOST. "
            "May be given again.",
        ),
    ] = None,
    slots: Annotated[
        int, typer.Option("--slots", metavar="N", min=0, help="Tasks at once on each node.")
    ] = SLOTS,
    executor: Annotated[
        str | None,
        typer.Option("--executor", metavar="NAME", help="Agent program of the nodes."),
    ] = None,
    specs: Annotated[
        Path | None,
        typer.Option("--specs", metavar="DIR", exists=True, file_okay=False, help="Task specs."),
    ] = None,
    project: Annotated[
        str | None, typer.Option("--project", metavar="NAME", help="Project of those specs.")
    ] = None,
    code: Annotated[
        str | None,
        typer.Option(
            "--code", metavar="PLACE", help="The project's code: a folder, or a git repository."
        ),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Make a home: asks on a terminal, else takes the options. Ends by running doctor."""
    root = root_of(home)
    if nodes is None and specs is None and sys.stdin.isatty():
        root = absolute(typer.prompt("Home of the controller", default=str(root)))
        specs, project, code = _ask_for_project()
        executor = executor or _ask_for_executor(specs)
        wanted = Wanted(_ask_for_nodes(executor), *_projects(specs, project, code))
    else:
        chosen = executor or usual_executor(find([specs]) if specs else None)
        entries = [_node(given, slots, chosen) for given in nodes or [THIS_MACHINE]]
        wanted = Wanted(entries, *_projects(specs, project, code))
    for path, written in make_home(Home(root), wanted):
        typer.echo(f"wrote {path}" if written else f"kept {path}, which was there")
    code_of_doctor = run_doctor(root, mend=False, migrate=False, as_json=False)
    start = f"dispatch-controller run --home {shlex.quote(str(root))}"
    typer.echo(f"start it with: {start}" if code_of_doctor == ExitCode.OK else f"then: {start}")
    raise typer.Exit(code_of_doctor)


def _projects(
    specs: Path | None, project: str | None, code: str | None
) -> tuple[Path | None, dict[str, dict[str, str]]]:
    return projects_of(absolute(specs), project, code) if specs is not None else (None, {})


def _node(given: str, slots: int, executor: str) -> NodeEntry:
    try:
        return node(given, slots, executor)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise Failure(f"--node {clean(given)}: {reason}", ExitCode.USAGE) from error


def _ask_for_project() -> tuple[Path | None, str | None, str | None]:
    while True:
        answer = typer.prompt("Folder with task specs (empty: none yet)", default="")
        if not answer:
            return None, None, None
        folder = absolute(answer)
        if folder.is_dir():
            break
        typer.echo(f"{folder} is not a folder")
    names = sorted({spec.project for spec in find([folder]).specs})
    project = None
    if len(names) > 1:
        typer.echo(f"its projects: {', '.join(map(clean, names))}")
    else:
        project = typer.prompt("Name of the project", default=names[0] if names else folder.name)
    code = typer.prompt("The project's code: a folder or a git address (empty: none)", default="")
    return folder, project, code or None


def _ask_for_executor(specs: Path | None) -> str:
    usual = usual_executor(find([specs]) if specs else None)
    return str(typer.prompt("Agent program of the nodes", default=usual))


def _ask_for_nodes(executor: str) -> Sequence[NodeEntry]:
    cores = max(1, (os.cpu_count() or 1) // 2)
    entries = []
    slots = typer.prompt("Tasks at once on this machine (0: none)", default=cores, type=int)
    if slots > 0:
        entries.append(_node(THIS_MACHINE, slots, executor))
    hosts = ssh_hosts(Path("~/.ssh/config").expanduser())
    if hosts:
        typer.echo(f"hosts in ~/.ssh/config: {' '.join(map(clean, hosts))}")
    asked = "Other machines, by host of ~/.ssh/config or user@host:port (empty: none)"
    for given in typer.prompt(asked, default="").replace(",", " ").split():
        slots = typer.prompt(f"Tasks at once on {clean(given)}", default=SLOTS, type=int)
        entries.append(_node(given, max(0, slots), executor))
    return entries
