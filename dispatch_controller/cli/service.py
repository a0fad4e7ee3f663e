"""Commands about the service that keeps the controller running."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from dispatch_controller.cli.exit_codes import ExitCode, Failure
from dispatch_controller.cli.options import HomeOption, JsonOption
from dispatch_controller.cli.output import clean, print_json
from dispatch_controller.home import Home, lock_home
from dispatch_controller.service.launchd import Launchd
from dispatch_controller.service.service import (
    Manager,
    Service,
    ServiceError,
    carried_environment,
    controller_argv,
    detect_platform,
)
from dispatch_controller.service.systemd import Systemd
from dispatch_controller.settings import load_settings

app = typer.Typer(help="Keep the controller running: launchd or systemd.", no_args_is_help=True)

PlatformOption = Annotated[
    Literal["launchd", "systemd"] | None,
    typer.Option("--platform", help="Service manager, instead of this machine's own."),
]
SystemOption = Annotated[
    bool,
    typer.Option("--system", help="A service of the whole machine (systemd, as root)."),
]


@app.command()
def install(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the file and the commands; change nothing.")
    ] = False,
    platform: PlatformOption = None,
    system: SystemOption = False,
    home: HomeOption = None,
) -> None:
    """Write and start the service, after unloading the three it replaces."""
    with _explained():
        manager = _manager(home, platform, system)
        if dry_run:
            typer.echo(f"# {manager.file}\n{manager.content()}", nl=False)
            typer.echo("# commands")
            for argv in manager.commands():
                typer.echo(shlex.join(argv))
        else:
            _need_free_home(manager, load_settings(home).home)
            manager.install(_tell)


@app.command()
def uninstall(
    platform: PlatformOption = None, system: SystemOption = False, home: HomeOption = None
) -> None:
    """Stop and remove the service, and say how to load the former ones again."""
    with _explained():
        _manager(home, platform, system).uninstall(_tell)


@app.command()
def restart(
    platform: PlatformOption = None, system: SystemOption = False, home: HomeOption = None
) -> None:
    """Stop the service in its own time and start it again; what runs on nodes goes on."""
    with _explained():
        _manager(home, platform, system).restart(_tell)


@app.command()
def status(
    as_json: JsonOption = False,
    platform: PlatformOption = None,
    system: SystemOption = False,
    home: HomeOption = None,
) -> None:
    """Say whether the service is installed and running; exit 69 when it is not running."""
    with _explained():
        found = _manager(home, platform, system).status()
    if as_json:
        print_json(
            {
                "installed": found.installed,
                "loaded": found.loaded,
                "running": found.running,
                "pid": found.pid,
                "state": found.state,
                "file": str(found.file),
            }
        )
    else:
        pid = f", pid {found.pid}" if found.pid else ""
        there = "installed" if found.installed else "not installed"
        _tell(f"{found.file}: {there}, {found.state}{pid}")
    if not found.running:
        raise typer.Exit(ExitCode.NOT_RUNNING)


def _manager(
    home: Path | None, platform: Literal["launchd", "systemd"] | None, system: bool
) -> Manager:
    settings = load_settings(home)
    service = Service(
        home=settings.home,
        argv=controller_argv(settings.home),
        grace=settings.grace,
        environment=carried_environment(os.environ, settings.other_variables),
    )
    if (platform or detect_platform()) == "launchd":
        if system:
            raise ServiceError("--system is for systemd; a launchd agent is its user's")
        return Launchd(service, uid=os.getuid())
    return Systemd(service, system=system)


def _need_free_home(manager: Manager, root: Path) -> None:
    """Raise HomeInUse where a controller that is no service runs: the service would not start."""
    ours = root.is_dir() and root.stat().st_uid == os.geteuid()
    if ours and not manager.status().running:
        with lock_home(Home(root)):
            pass


def _tell(line: str) -> None:
    typer.echo(clean(line))


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except ServiceError as error:
        raise Failure(str(error)) from error
