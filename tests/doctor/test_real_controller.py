"""Doctor beside the real controller."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.doctor.conftest import Place
from tests.e2e.controller import PROGRAM, Controller, environment

pytestmark = pytest.mark.slow


@pytest.fixture
def controller(place: Place) -> Iterator[Controller]:
    controller = Controller(place.home.root, extra={"HOME": os.environ["HOME"]})
    try:
        yield controller.start()
    finally:
        controller.close()


def doctor(place: Place) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [*PROGRAM, "doctor", "--json", "--home", str(place.home.root)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=90,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_a_healthy_controller_is_asked_and_found_well(place: Place, controller: Controller) -> None:
    code, report = doctor(place)
    assert (code, report["findings"]) == (0, [])
    assert report["controller"] == "running"


def test_a_controller_that_hangs_is_told_and_one_that_was_killed_is_mended(
    place: Place, controller: Controller
) -> None:
    os.kill(controller.pid, signal.SIGSTOP)
    try:
        code, report = doctor(place)
    finally:
        os.kill(controller.pid, signal.SIGCONT)
    assert code == 1
    (finding,) = report["findings"]
    assert f"kill -9 {controller.pid}" in finding["fix"]
    os.kill(controller.pid, signal.SIGKILL)
    controller.close()
    code, report = doctor(place)
    assert code == 1
    assert report["controller"] == "not running"
    (finding,) = report["findings"]
    assert finding["subject"] == str(place.home.controller)
