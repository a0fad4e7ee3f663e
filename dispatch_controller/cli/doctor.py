"""The command doctor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer
from rich.text import Text

from dispatch_controller.cli.client import connect
from dispatch_controller.cli.exit_codes import ExitCode, Failure
from dispatch_controller.cli.options import HomeOption, JsonOption
from dispatch_controller.cli.output import clean, complain, print_json, stderr, stdout
from dispatch_controller.doctor.controller import Ask, Unanswered
from dispatch_controller.doctor.finding import Finding, Severity
from dispatch_controller.settings_sources import absolute, default_home

if TYPE_CHECKING:
    from dispatch_controller.doctor.examination import Report

PATIENCE = httpx.Timeout(10)
"""A controller that takes longer to say how it is, is not well."""
STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


def doctor(
    mend: Annotated[
        bool, typer.Option("--fix", help="Mend what is safe to mend, then look again.")
    ] = False,
    migrate: Annotated[
        bool,
        typer.Option(
            "--migrate", help="Also say what the first start does with a home of older programs."
        ),
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Say what is wrong and how to mend it. Exit 0 only when all is well."""
    raise typer.Exit(run_doctor(root_of(home), mend=mend, migrate=migrate, as_json=as_json))


def run_doctor(root: Path, *, mend: bool, migrate: bool, as_json: bool) -> ExitCode:
    """Look, mend where asked, print; return OK when nothing is left to mend."""
    from dispatch_controller.logs import close_logging, configure_logging

    # What the parts log is for a controller's log: here each failure is a finding of its own.
    configure_logging("critical", None)
    try:
        with stderr().status("looking"):
            report = _look(root, migrate)
        mended: list[Finding] = []
        if mend and any(finding.repair is not None for finding in report.findings):
            mended = _mend(report.findings)
            with stderr().status("looking again"):
                report = _look(root, migrate)
    finally:
        close_logging()
    if as_json:
        print_json(_for_programs(report, mended))
    else:
        _for_people(root, report, mended)
    return ExitCode.OK if report.well else ExitCode.FAILED


def root_of(home: Path | None) -> Path:
    """Return the home that is meant, as the other commands find it."""
    return absolute(home) if home is not None else default_home(os.environ)[0]


def _look(root: Path, migrate: bool) -> Report:
    # Imported here: the way to the nodes, which takes every other command half a second to load.
    from dispatch_controller.doctor.examination import examine
    from dispatch_controller.runtime.clock import SystemClock

    return examine(root, clock=SystemClock(), ask=_asker(root), migrate=migrate)


def _asker(root: Path) -> Ask:
    def ask(path: str) -> tuple[int, Any]:
        try:
            with connect(root, None, PATIENCE) as client:
                answer = client.raw("GET", path)
            return answer.status_code, answer.json()
        except Failure as failure:
            raise Unanswered(str(failure).partition("\n")[0]) from failure
        except ValueError as failed:
            raise Unanswered(f"its answer is not JSON: {failed}") from failed

    return ask


def _mend(findings: Sequence[Finding]) -> list[Finding]:
    mended: list[Finding] = []

    def tell(finding: Finding, why_not: str | None) -> None:
        if why_not is None:
            mended.append(finding)
        else:
            complain(f"not mended: {finding.subject}: {why_not}")

    from dispatch_controller.doctor.examination import repair

    repair(findings, tell)
    return mended


def _for_programs(report: Report, mended: Sequence[Finding]) -> dict[str, Any]:
    return {
        "ok": report.well,
        "controller": "running" if report.running else "not running",
        "findings": [finding.as_dict() for finding in report.findings],
        "fixed": [finding.as_dict() for finding in mended],
    }


def _for_people(root: Path, report: Report, mended: Sequence[Finding]) -> None:
    for finding in mended:
        _line("mended", "green", f"{finding.subject} {finding.text}")
    for finding in report.findings:
        head = f"{finding.subject}: {finding.text}"
        _line(finding.severity.value, STYLES[finding.severity], head)
        if finding.fix:
            _line("", "", f"→ {finding.fix}")
    if report.well:
        state = "a controller runs on it" if report.running else "no controller runs on it"
        _line("well", "green", f"nothing to mend in {root} ({state})")


def _line(word: str, style: str, text: str) -> None:
    first, *rest = clean(text).split("\n")
    stdout().print(Text.assemble((f"{word:8}", style), first))
    for line in rest:
        stdout().print(Text(" " * 8 + line))
