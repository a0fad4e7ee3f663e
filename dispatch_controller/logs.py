"""Logging: a line per event, JSON in files, readable on a terminal, no secrets, level at run time.

    log = structlog.get_logger("loops.reaper")
    log.info("task_ended", loop="reaper", cycle=3, task="S01", node="mini", attempt=1)

What other libraries log by the standard library goes the same way.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterable, Mapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from dispatch_controller.home import unusable
from dispatch_controller.settings_report import HIDDEN, secret_name

FILE_NAME = "controller.log"
FILE_BYTES = 10 * 1024 * 1024
FILE_COUNT = 7

_CHATTY = ("asyncssh", "hypercorn.access", "httpx", "httpcore", "asyncio")
"""Libraries whose INFO is not news for whoever runs this; they speak from WARNING on."""

_SECRET_TEXT = re.compile(
    r"""(?ix)
    (?P<before> \bbearer\s+(?=\S*[\d._~+/-]|\S{16})
      | \bauthorization["']?\s*[=:]\s*["']?(?:[a-z]+\s+)?
      | \b[a-z][a-z0-9+.-]*://[^\s/:@]*:(?=[^\s/@]+@)
      | \b[\w-]*(?:api[_-]?key|token|secret|passw(?:or)?d)["']?\s*[=:]\s*["']? )
    [^\s"',;&@]+
    | \b(?: sk-[\w-]{16,} | gh[pousr]_\w{20,} | github_pat_\w{20,} | xox[abprs]-[\w-]{10,}
      | AKIA[0-9A-Z]{16} | AIza[\w-]{30,} )
    | -----BEGIN\ [A-Z\ ]*PRIVATE\ KEY-----[\s\S]*?(?:-----END\ [A-Z\ ]*PRIVATE\ KEY-----|\Z)
    """
)


class Redactor:
    """A processor that takes secrets out of an event: by key, by known value, by their look."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = sorted({value for value in known if len(value) >= 4}, key=len, reverse=True)

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {key: self._clean(key, value) for key, value in event.items()}

    def text(self, text: str) -> str:
        """Return `text` without secrets."""
        for value in self._known:
            text = text.replace(value, HIDDEN)
        return _SECRET_TEXT.sub(lambda found: (found["before"] or "") + HIDDEN, text)

    def _clean(self, key: str, value: object) -> object:
        if isinstance(value, bool | int | float | None):
            return value
        if secret_name(key):
            return HIDDEN
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {k: self._clean(str(k), v) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean("", item) for item in value]
        if key.startswith("_"):  # structlog's own: the record, and where the event came from
            return value
        return self.text(str(value))


def configure_logging(
    level: str,
    folder: Path | None,
    *,
    stream: TextIO | None = None,
    known_secrets: Iterable[str] = (),
) -> None:
    """Send what is logged to `stream` (default: standard error) and to a rotated file in `folder`.

    The stream gets readable lines when it is a terminal, else JSON lines; the file always JSON.
    Raises HomeError when the file cannot be written.
    """
    stream = sys.stderr if stream is None else stream
    redact = Redactor(known_secrets)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact,
    ]
    json_lines = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    readable = structlog.dev.ConsoleRenderer(colors=True)
    terminal = logging.StreamHandler(stream)
    terminal.setFormatter(_formatter(shared, readable if stream.isatty() else json_lines))
    handlers: list[logging.Handler] = [terminal]
    if folder is not None:
        path = folder / FILE_NAME
        try:
            file = RotatingFileHandler(
                path, maxBytes=FILE_BYTES, backupCount=FILE_COUNT - 1, encoding="utf-8"
            )
        except OSError as error:
            raise unusable(path, error) from error
        file.setFormatter(_formatter(shared, json_lines))
        handlers.append(file)
    close_logging()
    root = logging.getLogger()
    for handler in handlers:
        root.addHandler(handler)
    logging.captureWarnings(True)
    # A full disk must not end in tracebacks on standard error, line by line.
    logging.raiseExceptions = False
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    set_level(level)


def _formatter(shared: list[Processor], renderer: Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )


def set_level(level: str) -> None:
    """Log from `level` (debug, info, warning, error) on, at once. Raises ValueError."""
    names = logging.getLevelNamesMapping()
    number = names.get(level.upper())
    if number is None:
        raise ValueError(f"no such log level: {level}")
    logging.getLogger().setLevel(number)
    for name in _CHATTY:
        chatty = number if number <= logging.DEBUG else max(number, logging.WARNING)
        logging.getLogger(name).setLevel(chatty)


def close_logging() -> None:
    """Take away and close what configure_logging set up (its files are closed)."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(handler)
            with contextlib.suppress(OSError):  # a full disk: what it still held is lost
                handler.close()
