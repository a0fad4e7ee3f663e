"""What /openapi.json says of a handler, beside what its models say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from quart_schema import document_querystring, document_request, document_response

from dispatch_controller.web.types import Answer, Error
from dispatch_controller.web.worker_messages import Failed

Handler = TypeVar("Handler", bound=Callable[..., Any])
Type = Any
"""A model, or a list of one."""

READ_ERRORS = (401, 403, 422, 503)
WRITE_ERRORS = (400, 401, 403, 408, 413, 415, 422, 503)


def reads(data: Type, *errors: int, query: Type = None) -> Callable[[Handler], Handler]:
    """Document a GET: its data, its query, and the errors it has beside the usual ones."""

    def document(handler: Handler) -> Handler:
        if query is not None:
            handler = document_querystring(query)(handler)
        return _answers(handler, Answer[data], 200, Error, (*READ_ERRORS, *errors))

    return document


def changes(
    data: Type, request: Type, *errors: int, status: int = 200
) -> Callable[[Handler], Handler]:
    """Document a POST: its body, its data, and the errors it has beside the usual ones."""

    def document(handler: Handler) -> Handler:
        handler = document_request(request)(handler)
        return _answers(handler, Answer[data], status, Error, (*WRITE_ERRORS, *errors))

    return document


def of_workers(answer: Type, request: Type = None, *errors: int) -> Callable[[Handler], Handler]:
    """Document an endpoint of /v1, whose answers have no envelope."""

    def document(handler: Handler) -> Handler:
        usual: tuple[int, ...] = READ_ERRORS
        if request is not None:
            handler, usual = document_request(request)(handler), WRITE_ERRORS
        return _answers(handler, answer, 200, Failed, (*usual, *errors))

    return document


def _answers(
    handler: Handler, answer: Type, status: int, error: Type, errors: tuple[int, ...]
) -> Handler:
    handler = document_response(answer, status)(handler)
    for refused in errors:
        handler = document_response(error, refused)(handler)
    return handler
