"""With a controller on the home doctor asks it, and keeps its hands off the database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dispatch_controller import __version__
from dispatch_controller.doctor.controller import Unanswered
from dispatch_controller.doctor.examination import repair
from dispatch_controller.home import lock_home
from tests.doctor.conftest import Place


def answers(
    health: tuple[int, Any] = (200, {}),
    version: str = __version__,
    nodes: tuple[dict[str, Any], ...] = (),
) -> Callable[[str], tuple[int, Any]]:
    def ask(path: str) -> tuple[int, Any]:
        return {
            "/health": health,
            "/v1/status": (200, {"status": "OK", "version": version}),
            "/api/v1/nodes": (200, {"ok": True, "data": list(nodes)}),
        }[path]

    return ask


@pytest.fixture
def running(place: Place) -> Iterator[Place]:
    """A home that this process holds as a controller does."""
    with lock_home(place.home):
        yield place


def test_a_healthy_controller_has_nothing_to_mend(running: Place) -> None:
    report = running.look(answers())
    assert report.findings == ()
    assert report.running


def test_the_database_is_left_to_the_controller(running: Place) -> None:
    running.home.database.write_text("these are no tables " * 100)
    assert running.look(answers()).findings == ()


def test_a_controller_that_does_not_answer_is_told_with_its_pid(running: Place) -> None:
    def silent(path: str) -> tuple[int, Any]:
        raise Unanswered("timed out")

    (finding,) = running.look(silent).findings
    assert finding.check == "controller"
    assert f"kill -9 {os.getpid()}" in finding.fix


def test_what_the_controller_is_ill_of_is_told(running: Place) -> None:
    body = {"status": "unhealthy", "reasons": ["reaper has had no good step for 200 s"]}
    (finding,) = running.look(answers(health=(503, body))).findings
    assert "reaper has had no good step" in finding.text
    (finding,) = running.look(answers(health=(503, None))).findings
    assert "does not say why" in finding.text


def test_a_controller_older_than_the_program_is_told(running: Place) -> None:
    (finding,) = running.look(answers(version="0.0.1")).findings
    assert "0.0.1" in finding.text
    assert "service restart" in finding.fix


def test_a_quarantined_node_is_told_with_its_reason(running: Place) -> None:
    rows = ({"name": "mini", "quarantined": True, "quarantine_reason": "score 55"},)
    (finding,) = running.look(answers(nodes=rows)).findings
    assert finding.subject == "mini"
    assert "score 55" in finding.text


def test_what_is_safe_is_mended_and_then_all_is_well(place: Place) -> None:
    place.home.controller.write_text("{}")
    token = place.home.root / "token"
    token.write_text("s3cret-s3cret")
    token.chmod(0o664)
    place.home.settings.write_text(f'port = 0\napi_token_file = "{token}"\n')
    place.home.root.chmod(0o775)
    mended: list[tuple[str, str | None]] = []
    report = place.look()
    assert len(report.findings) == 3
    repair(report.findings, lambda finding, why: mended.append((finding.check, why)))
    assert mended == [("permissions", None), ("controller", None), ("permissions", None)]
    assert place.look().findings == ()
    assert token.stat().st_mode & 0o777 == 0o600
    assert place.home.root.stat().st_mode & 0o777 == 0o755
    assert token.read_text() == "s3cret-s3cret"
