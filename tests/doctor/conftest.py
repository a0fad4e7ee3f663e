"""A healthy home with one node on this machine, and a way to look at it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dispatch_controller.doctor.controller import Unanswered
from dispatch_controller.doctor.examination import Report, examine
from dispatch_controller.home import Home, owner_id
from dispatch_controller.runtime.clock import SystemClock
from dispatch_controller.store.schema import prepare
from tests.sshd import ssh_fleet

__all__ = ["ssh_fleet"]

SPEC = """---
task_id: {id}
project: shop
modifies: [{id}.py]
depends_on: [{depends_on}]
executor: shell
---
# A task

```sh
true
```
"""
DF = """#!/bin/sh
echo "Filesystem 1024-blocks Used Available Capacity Mounted on"
echo "/dev/disk 1000000 {used} {free} {used}% /"
"""


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def no_controller(path: str) -> tuple[int, Any]:
    raise Unanswered("nothing is there to ask")


@dataclass
class Place:
    """The home, and the programs that come first on the nodes' PATH."""

    home: Home
    programs: Path

    def look(
        self, ask: Callable[[str], tuple[int, Any]] = no_controller, *, migrate: bool = False
    ) -> Report:
        return examine(self.home.root, clock=SystemClock(), ask=ask, migrate=migrate)

    def nodes(self, *entries: dict[str, object]) -> None:
        self.home.nodes.write_text(json.dumps(entries))

    def spec(self, task_id: str, depends_on: str = "") -> Path:
        path = self.home.root / "specs" / "shop" / f"{task_id}.md"
        path.write_text(SPEC.format(id=task_id, depends_on=depends_on))
        return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name in list(os.environ):
        if name.startswith("DISPATCH_") or name == "CONTROLLER_PORT":
            monkeypatch.delenv(name)
    user = tmp_path / "user"
    (user / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(user))
    programs = tmp_path / "programs"
    programs.mkdir()
    # How full this machine's own disk is must not decide a test.
    script(programs / "df", DF.format(used=500000, free=500000))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    home = Home(tmp_path / "home")
    home.prepare()
    owner_id(home)
    prepare(home.database)
    home.settings.write_text("port = 0\n")
    place = Place(home, programs)
    place.nodes({"name": "here", "slots": 2, "executor": "shell"})
    (home.root / "specs" / "shop").mkdir(parents=True)
    place.spec("S01")
    place.spec("S02", "S01")
    return place
