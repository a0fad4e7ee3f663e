"""Commands about the factory: what it would do, one cycle now, and its drafts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from dispatch_controller.cli.client import Client, connect
from dispatch_controller.cli.exit_codes import ExitCode, Failure
from dispatch_controller.cli.options import HomeOption, JsonOption, UrlOption
from dispatch_controller.cli.output import (
    cell,
    complain,
    counted,
    print_json,
    print_table,
    stderr,
    stdout,
    time_cell,
)

app = typer.Typer(
    help="Generate specs from evidence; look through its drafts.", no_args_is_help=True
)

ProjectOption = Annotated[
    str | None, typer.Option("--project", metavar="P", help="Only this project.")
]
DraftIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of drafts.")]


@app.command()
def plan(
    project: ProjectOption = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """Show what a cycle would do now, and why. Nothing is asked of a generator."""
    with connect(home, url) as client:
        data = client.get("factory", project=project)
    if project is not None and not data["projects"]:
        raise Failure(f"there is no project {project}")
    if as_json:
        print_json(data)
        return
    loop = "on" if data["enabled"] else "off (factory run does a cycle)"
    pending = counted(data["pending"], "task")
    stdout().print(cell(f"loop {loop}; {pending} pending, wanted are {data['min_pending']}"))
    print_table(
        ["project", "generator", "made", "allowed", "step", "asks for", "why"],
        (
            [
                cell(row["project"], "bold"),
                cell(row["generator"] + (" (dry run)" if row["dry_run"] else "")),
                cell(row["made"]),
                cell(row["allowance"]),
                cell(step["step"]),
                cell(step["wanted"] or "nothing", "green" if step["wanted"] else "dim"),
                cell(step["why"]),
            ]
            for row in data["projects"]
            for step in row["steps"]
        ),
    )
    research = data["research"]
    if research["sources"]:
        due = time_cell(research["due"]).plain or "with the next cycle"
        stdout().print(cell(f"research: {', '.join(research['sources'])}; due {due}"))
    for name, spent in data["spent"].items():
        if spent["tokens"]:
            used = f"{name}: {spent['tokens']} tokens, cost {spent['cost']:g}, in 24 hours"
            stdout().print(cell(used))


@app.command()
def run(
    project: ProjectOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Make drafts; register nothing.")
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """Do one cycle now, also with the loop off."""
    body = {"project": project, "dry_run": True if dry_run else None}
    with connect(home, url) as client, stderr().status("generating"):
        done = client.post("factory/run", body, patient=True)
    if as_json:
        print_json(done)
    elif not done:
        stdout().print("nothing to do; `dispatch-controller factory plan` says why")
    else:
        for one in done:
            _print_done(one)
    if any(one["failed"] for one in done):
        raise typer.Exit(ExitCode.FAILED)


def _print_done(one: dict[str, Any]) -> None:
    if one["new"] is not None:
        stdout().print(cell(f"research: {one['new']} new"))
        return
    if one["failed"]:
        complain(f"{one['project']}: {one['generator']} failed: {one['failed']}")
        return
    words = {"registered": "registered", "drafts": "waits for approval", "rejected": "rejected"}
    found = [(word, name) for key, word in words.items() for name in one[key]]
    for word, name in found:
        stdout().print(cell(f"{one['project']}: {name}: {word}"))
    if not found:
        stdout().print(cell(f"{one['project']}: {one['generator']} had nothing new"))


@app.command()
def drafts(
    project: ProjectOption = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """List drafts: specs that wait for approval, and those that did not pass the checks."""
    with connect(home, url) as client:
        rows = client.get("factory/drafts", project=project)
    if as_json:
        print_json(rows)
        return
    print_table(
        ["project", "draft", "state", "reason", "by", "written", "file"],
        (
            [
                cell(row["project"]),
                cell(row["id"], "bold"),
                cell(row["state"], "yellow" if row["state"] == "held" else "red"),
                cell(row["reason"]),
                cell(row["generator"]),
                time_cell(row["at"]),
                cell(row["file"], "dim"),
            ]
            for row in rows
        ),
    )


@app.command()
def approve(
    drafts: DraftIds,
    project: ProjectOption = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """Register drafts, as their files are now."""
    _each("approve", drafts, project, as_json, home, url)


@app.command()
def drop(
    drafts: DraftIds,
    project: ProjectOption = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """Drop drafts for good: what they are about is not asked for again."""
    _each("drop", drafts, project, as_json, home, url)


def _each(
    verb: str,
    names: list[str],
    project: str | None,
    as_json: bool,
    home: Path | None,
    url: str | None,
) -> None:
    """Do it for each draft; one that fails stops no other."""
    results = []
    with connect(home, url) as client:
        for name in names:
            try:
                own = project or _project_of(client, name)
                path = f"factory/drafts/{quote(own, safe='')}/{quote(name, safe='')}/{verb}"
                results.append({"id": name, "ok": True, **client.post(path)})
            except Failure as failure:
                if failure.code != ExitCode.FAILED:
                    raise
                results.append({"id": name, "ok": False, "error": str(failure)})
    if as_json:
        print_json(results)
    else:
        for result in results:
            if result["ok"]:
                what = f"task {result['task_id']}" if verb == "approve" else "dropped"
                stdout().print(cell(f"{result['id']}: {what}"))
            else:
                complain(str(result["error"]))
    if not all(result["ok"] for result in results):
        raise typer.Exit(ExitCode.FAILED)


def _project_of(client: Client, name: str) -> str:
    """Return the one project that has a draft of that id. Raises Failure."""
    found = [str(row["project"]) for row in client.get("factory/drafts") if row["id"] == name]
    if not found:
        raise Failure(f"there is no draft {name}; `dispatch-controller factory drafts` lists them")
    if len(found) > 1:
        raise Failure(f"draft {name} is in several projects: say --project {' or '.join(found)}")
    return found[0]
