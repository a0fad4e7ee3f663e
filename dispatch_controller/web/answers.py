"""Answers: JSON always, errors too, in the form that the path's clients expect."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import Any, NoReturn

from quart import Response

CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    409: "conflict",
    413: "too_large",
    415: "not_json",
    422: "invalid",
    500: "internal",
    503: "unavailable",
}
"""`error.code` of /api/v1 by HTTP status."""


class Problem(Exception):
    """Becomes an error answer: `status` is HTTP's, the text is for whoever asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def dump(value: object) -> bytes:
    """Return `value` as JSON in UTF-8. What JSON cannot hold becomes something near that it can."""
    try:
        text = json.dumps(
            value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_near
        )
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=_near)
    return text.encode("utf-8", "replace")


def _near(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return `value` with None for numbers that JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def answer(value: object, status: int = 200) -> Response:
    """Return a JSON answer of exactly that value."""
    return Response(dump(value), status=status, content_type="application/json")


def ok(data: object, status: int = 200) -> Response:
    """Return `{ok: true, data}`."""
    return answer({"ok": True, "data": data}, status)


def error_body(path: str, status: int, message: str) -> bytes:
    """Return the error answer for `path`: /v1 has a form of its own, which its workers know."""
    if path.startswith("/v1/"):
        return dump({"error": message})
    code = CODES.get(status) or HTTPStatus(status).phrase.lower().replace(" ", "_")
    return dump({"ok": False, "error": {"code": code, "message": message}})


def error_answer(path: str, status: int, message: str) -> Response:
    return Response(
        error_body(path, status, message), status=status, content_type="application/json"
    )


def refuse(status: int, message: str) -> NoReturn:
    raise Problem(status, message)
