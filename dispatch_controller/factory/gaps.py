"""Generator `gaps`: the project's own evidence. Needs no model and no network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from dispatch_controller.core import gaps
from dispatch_controller.core.candidates import Candidate
from dispatch_controller.core.gaps import CheckRun, Gap
from dispatch_controller.factory.checkout import Checkout
from dispatch_controller.factory.generator import Generated, GeneratorFailed, Request
from dispatch_controller.factory.programs import Ran, run_program, without_secrets
from dispatch_controller.runtime.threads import RunSync

OUTPUT_LIMIT = 256 * 1024
_SHELL = "/bin/sh"


class Gaps:
    """Reads the checkout and what the database says of the project's tasks."""

    def __init__(self, run_sync: RunSync, check_timeout: float) -> None:
        self._run_sync = run_sync
        self._check_timeout = check_timeout

    async def generate(self, request: Request) -> Generated:
        if request.checkout is None:
            raise GeneratorFailed(
                "gaps needs the project's checkout: set repo_local in projects.json"
            )
        failed: list[CheckRun] = []
        remarks: list[str] = []
        passes: str | None = None
        for number, command in enumerate(request.checks):
            ran = await self._check(request, command)
            if ran.code is None:
                why = "took too long" if ran.timed_out else "wrote too much"
                remarks.append(f"check `{command}` {why}: it is not judged")
            elif ran.code != 0:
                failed.append(CheckRun(command, ran.code, ran.output))
            elif number == 0:
                passes = command
        found = await self._run_sync(_find, request, request.checkout, failed, passes)
        return Generated([Candidate(gaps.spec_text(gap)) for gap in found], remarks)

    async def _check(self, request: Request, command: str) -> Ran:
        try:
            return await run_program(
                [_SHELL, "-c", command],
                timeout=self._check_timeout,
                limit=OUTPUT_LIMIT,
                cwd=request.root,
                with_errors=True,
                environment=without_secrets(os.environ),
            )
        except OSError as error:
            raise GeneratorFailed(f"check `{command}` cannot be run: {error}") from error


def _find(
    request: Request, checkout: Checkout, failed: list[CheckRun], passes: str | None
) -> list[Gap]:
    """Return the first gaps whose keys are new, the surest evidence first."""
    found: list[Gap] = []
    keys: set[str] = set()
    for gap in _all(request, checkout, failed, passes):
        if len(found) >= request.wanted:
            break
        if gap.key not in request.seen and gap.key not in keys:
            keys.add(gap.key)
            found.append(gap)
    return found


def _all(
    request: Request, checkout: Checkout, failed: list[CheckRun], passes: str | None
) -> Iterator[Gap]:
    files = checkout.files
    for run in failed:
        yield from gaps.check_gaps(run, files)
    yield from gaps.ended_gaps(request.ended, request.verify)
    yield from gaps.dependency_gaps(request.waiting, request.names)
    markers = [gap for path, text in checkout.sources() for gap in gaps.marker_gaps(path, text)]
    for gap in sorted(markers, key=lambda gap: gap.priority):
        yield _with_project_check(gap, passes)
    for gap in gaps.box_gaps(request.completed, files):
        yield _with_project_check(gap, passes)


def _with_project_check(gap: Gap, passes: str | None) -> Gap:
    """Ask for the project's own check as well, where that one passes now."""
    if passes is None or gap.verify is None:
        return gap
    inside = f"\n{passes}\n" if "#" in passes or "\n" in passes else f" {passes} "
    return replace(gap, verify=f"{gap.verify} && ({inside})")
