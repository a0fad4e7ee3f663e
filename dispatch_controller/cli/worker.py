"""`worker`: serve a node from this machine, by HTTP."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from dispatch_controller.cli.exit_codes import ExitCode, Failure
from dispatch_controller.settings_sections import is_loopback

_NODE = re.compile(r"[^\s/:\x00-\x1f]{1,128}")


def worker(
    controller: Annotated[
        str,
        typer.Option("--controller", metavar="URL", help="Address of the controller."),
    ],
    node: Annotated[
        str,
        typer.Option("--node", metavar="NAME", help="Node of nodes.json that this machine serves."),
    ],
    slots: Annotated[
        int,
        typer.Option(
            "--slots", metavar="N", min=1, max=10_000, help="Tasks that run here at a time."
        ),
    ] = 4,
    work_dir: Annotated[
        Path, typer.Option("--work-dir", metavar="DIR", help="Folder of the tasks.")
    ] = Path("~/dispatch"),
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="TOKEN",
            envvar="DISPATCH_API_TOKEN",
            show_envvar=True,
            help="The controller's token; better in a file, since others see a command line.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="File that holds the token."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="HOST:PORT",
            help="Be pushed to at this address, instead of polling; port 0 takes a free one.",
        ),
    ] = None,
) -> None:
    """Run tasks of a controller on this machine, without SSH, until SIGTERM or Ctrl-C.

    It polls, so that it works behind NAT. Tasks outlive it; ends are reported until the controller
    has acknowledged them.
    """
    if not _NODE.fullmatch(node) or node.startswith("."):
        raise Failure(f"--node {node!r} cannot be the name of a node", ExitCode.USAGE)
    secret = token if token_file is None else _read_token(token_file)
    address = None if listen is None else _address(listen)
    if address is not None and secret is None and not is_loopback(address[0]):
        raise Failure(
            f"--listen {listen} lets other machines run programs here: that needs the controller's "
            "token, by --token-file",
            ExitCode.USAGE,
        )
    # Imported here: what no other command needs.
    from dispatch_controller.worker.app import run
    from dispatch_controller.worker.options import Options

    options = Options(
        controller=_controller(controller),
        node=node,
        slots=slots,
        work_dir=work_dir.expanduser().absolute(),
        token=secret,
        listen=address,
    )
    run(options)


def _controller(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.path.strip("/") or parts.query or parts.username is not None:
        raise Failure(f"--controller {url}: write http://HOST:PORT", ExitCode.USAGE)
    return url.rstrip("/")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise Failure(f"--listen {text}: write HOST:PORT", ExitCode.USAGE)
    return host.strip("[]"), int(port)


def _read_token(path: Path) -> str:
    try:
        token = path.expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"--token-file {path}: {error}", ExitCode.CONFIG) from error
    if not token:
        raise Failure(f"--token-file {path} is empty", ExitCode.CONFIG)
    return token
