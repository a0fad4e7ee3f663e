"""Commands about tasks: register, tasks, show, logs, retry, cancel."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from dispatch_controller.cli.client import Client, connect, task_path
from dispatch_controller.cli.exit_codes import ExitCode, Failure
from dispatch_controller.cli.options import HomeOption, JsonOption, TaskId, TaskIds, UrlOption
from dispatch_controller.cli.output import (
    cell,
    clean,
    complain,
    counted,
    log_text,
    print_json,
    print_table,
    short_duration,
    status_cell,
    stderr,
    stdout,
    time_cell,
)
from dispatch_controller.core.ids import shown
from dispatch_controller.model import TaskStatus

LOG_PIECE = 65536
"""Bytes of a log asked for at once."""
FOLLOW_INTERVAL = 1.0
"""Seconds between two looks at a log that is followed."""


def register(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            exists=True,
            help="Spec files, a folder of specs, or a folder of project folders.",
        ),
    ],
    project: Annotated[
        str | None, typer.Option("--project", metavar="NAME", help="Project of all of them.")
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """Register task specs. Files with errors are told; the others are registered all the same."""
    body = {"paths": [str(path.absolute()) for path in paths], "project": project}
    with connect(home, url) as client, stderr().status("registering"):
        result = client.post("register", body)
    if as_json:
        print_json(result)
    else:
        _print_registration(result)
    if result["errors"]:
        raise typer.Exit(ExitCode.FAILED)


def _print_registration(result: dict[str, Any]) -> None:
    counts = ("registered", "updated", "unchanged", "documents")
    stdout().print(", ".join(f"{result[name]} {name}" for name in counts))
    for warning in result["warnings"]:
        stderr().print(Text(clean(f"warning: {warning['file']}: {warning['reason']}"), "yellow"))
    for error in result["errors"]:
        line = f":{error['line']}" if error.get("line") else ""
        complain(f"error: {error['file']}{line}: {error['reason']}")


def tasks(
    status: Annotated[
        TaskStatus | None, typer.Option("--status", help="Only those in this state.")
    ] = None,
    project: Annotated[
        str | None, typer.Option("--project", metavar="P", help="Only those of this project.")
    ] = None,
    node: Annotated[
        str | None, typer.Option("--node", metavar="N", help="Only those on this node.")
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """List tasks; pending ones with the reason why they do not run."""
    wanted = status.value if status else None
    with connect(home, url) as client, stderr().status("reading tasks"):
        rows = client.tasks(status=wanted, project=project, node=node)
    if as_json:
        print_json(rows)
        return
    print_table(
        ["task", "project", "status", "node", "try", "prio", "took", ""],
        (
            [
                cell(row["id"], "bold"),
                cell(row["project"]),
                status_cell(row["status"]),
                cell(row["node"]),
                cell(row["attempt"]),
                cell(row["priority"]),
                cell(short_duration(row["duration_seconds"])),
                cell(_why(row)),
            ]
            for row in rows
        ),
    )
    stderr().print(counted(len(rows), "task"), style="dim")


def _why(row: dict[str, Any]) -> str | None:
    reason = row.get("reason")
    text = reason.get("text") if isinstance(reason, dict) else reason
    return text or row.get("error")


def show(
    task: TaskId,
    as_json: JsonOption = False,
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """Show one task with everything that happened to it."""
    with connect(home, url) as client:
        row = client.get(task_path(task))
    if as_json:
        print_json(row)
        return
    events = row.pop("events", [])
    row["reason"] = _why({"reason": row.get("reason")})
    told = {key: value for key, value in row.items() if value not in (None, "", [])}
    print_table(
        ["", row["id"]],
        (
            [cell(key, "dim"), status_cell(value) if key == "status" else cell(value)]
            for key, value in told.items()
            if key != "id"
        ),
    )
    print_table(
        ["when", "event", "node", "details"],
        (
            [
                time_cell(event["timestamp"]),
                cell(event["event_type"], "bold"),
                cell(event["node"]),
                cell(event["details"]),
            ]
            for event in events
        ),
    )


def logs(
    task: TaskId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the task has ended.")
    ] = False,
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """Print the log of a task's last attempt."""
    with connect(home, url) as client:
        try:
            _copy_log(client, task, follow)
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None


def _copy_log(client: Client, task: str, follow: bool) -> None:
    terminal = sys.stdout.isatty()
    offset = 0
    while True:
        piece = client.get(task_path(task, "log"), offset=offset, limit=LOG_PIECE)
        if piece["size"] < offset:
            complain("the log starts again: a new attempt runs")
            offset = 0
            continue
        sys.stdout.write(log_text(piece["text"], terminal))
        sys.stdout.flush()
        # Bytes that were no UTF-8 came as something longer; never step past the end for them.
        length = len(piece["text"].encode("utf-8", "surrogateescape"))
        offset = min(piece["offset"] + length, piece["size"])
        if piece["text"] and offset < piece["size"]:
            continue
        if not (follow and piece["alive"]):
            return
        time.sleep(FOLLOW_INTERVAL)


def retry(
    ids: TaskIds,
    as_json: JsonOption = False,
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """Make failed or given-up tasks pending again."""
    _each(ids, "retry", as_json, home, url)


def cancel(
    ids: TaskIds,
    as_json: JsonOption = False,
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """Give tasks up; one that runs is ended first."""
    _each(ids, "cancel", as_json, home, url)


def _each(ids: list[str], verb: str, as_json: bool, home: Path | None, url: str | None) -> None:
    rows: list[dict[str, Any]] = []
    refused = False
    with connect(home, url) as client:
        for task in ids:
            try:
                row = client.post(task_path(task, verb))
            except Failure as failure:
                if failure.code is not ExitCode.FAILED:
                    raise
                refused = True
                # Most name the task themselves, some as it can be shown.
                told = str(failure)
                named = task in told or shown(task) in told
                complain(told if named else f"{task}: {told}")
                continue
            rows.append(row)
            if not as_json:
                # A task on a node is given up when its agent has ended, not before.
                ending = verb == "cancel" and row["status"] in ("claimed", "running")
                word = cell("is being ended") if ending else status_cell(row["status"])
                stdout().print(cell(row["id"], "bold"), word)
    if as_json:
        print_json(rows)
    if refused:
        raise typer.Exit(ExitCode.FAILED)
