"""Fixtures of the command line's tests: a controller to talk to, and a way to run commands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dispatch_controller.cli import main
from dispatch_controller.home import Controller, Home, write_controller
from tests.cli.controller import FakeController, Server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of its own, named by DISPATCH_HOME; nothing else of the environment counts."""
    for name in list(os.environ):
        if name.startswith("DISPATCH_") or name == "CONTROLLER_PORT":
            monkeypatch.delenv(name)
    home = Home(tmp_path / "home")
    home.prepare()
    monkeypatch.setenv("DISPATCH_HOME", str(home.root))
    return home


@pytest.fixture
def controller(home: Home) -> Iterator[FakeController]:
    """A controller that runs on the home."""
    server = Server(FakeController())
    server.thread.start()
    try:
        write_controller(home, Controller(os.getpid(), server.controller.url, "", "0.1.0"))
        yield server.controller
    finally:
        server.stop()


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(home: Home, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process and return its exit code and what it printed."""

    def run(*arguments: str) -> Result:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        code = ended.value.code
        assert code is None or isinstance(code, int)
        printed = capsys.readouterr()
        return Result(int(code or 0), printed.out, printed.err)

    return run
