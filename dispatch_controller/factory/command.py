"""Generator `command`: any program, context as JSON on stdin, specs as Markdown on stdout."""

from __future__ import annotations

import json
import os

from dispatch_controller.core import candidates
from dispatch_controller.factory.generator import Generated, GeneratorFailed, Request
from dispatch_controller.factory.programs import run_program
from dispatch_controller.factory.prompt import context
from dispatch_controller.runtime.threads import RunSync
from dispatch_controller.settings_sections import CommandGenerator

_KEPT_BACK = ("DISPATCH_API_TOKEN", "DISPATCH_WEBHOOK_URL")


class Command:
    def __init__(self, run_sync: RunSync, settings: CommandGenerator) -> None:
        self._run_sync = run_sync
        self._settings = settings

    async def generate(self, request: Request) -> Generated:
        settings = self._settings
        if not settings.argv:
            raise GeneratorFailed("no program is set: give factory.command.argv")
        given = await self._run_sync(context, request)
        environment = {k: v for k, v in os.environ.items() if k not in _KEPT_BACK}
        try:
            ran = await run_program(
                settings.argv,
                timeout=settings.timeout,
                limit=settings.output_limit,
                cwd=request.root,
                stdin=json.dumps(given, ensure_ascii=False).encode(),
                environment=environment,
            )
        except OSError as error:
            raise GeneratorFailed(f"{settings.argv[0]} cannot be run: {error}") from error
        if ran.timed_out:
            raise GeneratorFailed(f"{settings.argv[0]} took more than {settings.timeout:g} s")
        if ran.too_much:
            raise GeneratorFailed(
                f"{settings.argv[0]} wrote more than {settings.output_limit} bytes"
            )
        if ran.code != 0:
            raise GeneratorFailed(f"{settings.argv[0]} ended with exit code {ran.code}")
        return Generated(candidates.split(ran.output)[: request.wanted])
