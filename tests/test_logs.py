"""Logs: JSON lines, rotated, without secrets, level changed while running."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from dispatch_controller import logs
from dispatch_controller.home import HomeError
from dispatch_controller.logs import (
    FILE_NAME,
    Redactor,
    close_logging,
    configure_logging,
    set_level,
)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    level, raising = logging.getLogger().level, logging.raiseExceptions
    yield
    logging.raiseExceptions = raising
    close_logging()
    logging.captureWarnings(False)
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_an_event_is_one_json_line_in_the_stream_and_in_the_file(tmp_path: Path) -> None:
    stream = io.StringIO()
    configure_logging("info", tmp_path, stream=stream)
    log = structlog.get_logger("loops.reaper").bind(loop="reaper", cycle=3)
    log.info("task_ended", task="S01", node="mini", attempt=1)
    logging.getLogger("library").warning("it is %s", "late")
    first, second = lines(stream.getvalue())
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "task_ended",
        "level": "info",
        "logger": "loops.reaper",
        "loop": "reaper",
        "cycle": 3,
        "task": "S01",
        "node": "mini",
        "attempt": 1,
    }
    assert (second["event"], second["logger"]) == ("it is late", "library")
    assert [line["event"] for line in lines((tmp_path / FILE_NAME).read_text())] == [
        "task_ended",
        "it is late",
    ]


def test_a_terminal_gets_readable_lines(tmp_path: Path) -> None:
    stream = Terminal()
    configure_logging("info", tmp_path, stream=stream)
    structlog.get_logger("x").info("task_ended", task="S01")
    assert not stream.getvalue().startswith("{")
    assert "task_ended" in stream.getvalue()
    assert lines((tmp_path / FILE_NAME).read_text())[0]["task"] == "S01"


def test_the_level_changes_at_run_time() -> None:
    stream = io.StringIO()
    configure_logging("warning", None, stream=stream)
    log = structlog.get_logger("x")
    log.info("one")
    set_level("debug")
    log.debug("two")
    set_level("error")
    log.warning("three")
    assert [line["event"] for line in lines(stream.getvalue())] == ["two"]
    with pytest.raises(ValueError, match="loud"):
        set_level("loud")


def test_libraries_that_talk_much_are_heard_from_warning_on() -> None:
    stream = io.StringIO()
    configure_logging("info", None, stream=stream)
    logging.getLogger("asyncssh").info("channel opened")
    logging.getLogger("asyncssh").warning("odd")
    set_level("debug")
    logging.getLogger("asyncssh").info("channel closed")
    assert [line["event"] for line in lines(stream.getvalue())] == ["odd", "channel closed"]


def test_secrets_reach_neither_stream_nor_file(tmp_path: Path) -> None:
    stream = io.StringIO()
    configure_logging("info", tmp_path, stream=stream, known_secrets=["hunter2-hunter2"])
    log = structlog.get_logger("x")
    log.info("a", api_token="S3CRET", nested={"DB_PASSWORD": "S3CRET", "list": ["hunter2-hunter2"]})
    log.info("Authorization: Basic S3CRET, then Bearer S3CRET")
    log.info("b", url="https://user:S3CRET@host/path", path=Path("/x/hunter2-hunter2"))
    log.info("c", text='{"api_key": "S3CRET"} token=S3CRET&x=1')
    log.info(
        "d", text="-----BEGIN OPENSSH PRIVATE KEY-----\nS3CRET\n-----END OPENSSH PRIVATE KEY---"
    )
    logging.getLogger("library").error("GET /?token=%s", "S3CRET")
    try:
        raise ValueError("hunter2-hunter2")
    except ValueError:
        log.exception("failed")
        logging.getLogger("library").exception("failed")
    for text in (stream.getvalue(), (tmp_path / FILE_NAME).read_text()):
        assert len(text.splitlines()) == 8
        assert "S3CRET" not in text
        assert "hunter2" not in text
        assert "ValueError: (hidden)" in text


@pytest.mark.parametrize(
    "text",
    [
        "task S01 waits for S02, S03",
        "ssh://mini:22/path and http://127.0.0.1:8080/v1/status",
        "used 1200 tokens in 3 requests",
        "user@host:22",
        "the lease mini:0a1b2c3d",
        "a bearer token is required",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert Redactor().text(text) == text


def test_numbers_are_no_secrets_and_known_keys_keep_their_values() -> None:
    event = {"event": "e", "tokens": 5, "token": None, "task": "S01"}
    assert Redactor()(None, "info", dict(event)) == event


def test_the_file_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 2000)
    monkeypatch.setattr(logs, "FILE_COUNT", 3)
    configure_logging("info", tmp_path, stream=io.StringIO())
    for number in range(100):
        structlog.get_logger("x").info("event", number=number)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [FILE_NAME, f"{FILE_NAME}.1", f"{FILE_NAME}.2"]
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())
    assert lines((tmp_path / FILE_NAME).read_text())[-1]["number"] == 99


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(HomeError, match=f"{FILE_NAME}: Is a directory: "):
        configure_logging("info", tmp_path, stream=io.StringIO())


def test_configuring_again_leaves_no_second_handler(tmp_path: Path) -> None:
    configure_logging("info", tmp_path, stream=io.StringIO())
    stream = io.StringIO()
    configure_logging("info", tmp_path, stream=stream)
    structlog.get_logger("x").info("once")
    assert len((tmp_path / FILE_NAME).read_text().splitlines()) == 1
    assert len(stream.getvalue().splitlines()) == 1
