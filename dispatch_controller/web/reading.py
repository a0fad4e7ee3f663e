"""Reading what was sent: strict JSON, and the models that also describe it in /openapi.json."""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from quart import request

from dispatch_controller.core import ids
from dispatch_controller.web.answers import refuse
from dispatch_controller.web.auth import SAFE_METHODS

Model = TypeVar("Model", bound=BaseModel)

_NODE = re.compile(r"[^\s/:\x00-\x1f]{1,128}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SHOWN_PROBLEMS = 5


async def require_json() -> None:
    """Refuse a state change that is not JSON and declared so: no form of a page can send that."""
    if request.method in SAFE_METHODS or request.routing_exception is not None:
        return
    content = await _content()
    if content:
        parse_json(content)
    if request.mimetype != "application/json":
        refuse(415, "a state change needs the header Content-Type: application/json")


async def body(model: type[Model]) -> Model:
    """Return the body as `model`. Raises Problem: 400 for what is no JSON, 422 for a wrong shape.

    Fields that the model does not know are ignored: programs of other versions send them.
    """
    return checked(model, parse_json(await _content()))


async def _content() -> bytes:
    return cast(bytes, await request.get_data(as_text=False))


def query(model: type[Model]) -> Model:
    """Return the query string as `model`; an empty value counts as absent. Raises Problem (422)."""
    given: dict[str, object] = {}
    for key, values in request.args.lists():
        if any(values):
            given[key] = values[0] if len(values) == 1 else values
    try:
        return model.model_validate(given, strict=False)
    except ValidationError as error:
        refuse(422, _told(error))


def checked(model: type[Model], value: object) -> Model:
    """Return a JSON value as `model`. Raises Problem (422)."""
    try:
        return model.model_validate(value, strict=True)
    except ValidationError as error:
        refuse(422, _told(error))


def parse_json(content: bytes) -> object:
    """Return what JSON in UTF-8 says. Raises Problem (400).

    Stricter than JSON: a key that stands twice, half a surrogate pair, and numbers that the
    database cannot hold are refused here, wherever they stand.
    """
    try:
        value: object = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=_no_number,
            parse_int=_integer,
            parse_float=_finite,
        )
        if _SURROGATE.search(content):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        refuse(400, "the body is not UTF-8, or names half a character")
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        refuse(400, f"the body is not JSON: {what}")
    return value


def _integer(digits: str) -> int:
    number = int(digits) if len(digits) < 25 else 1 << 64
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError("an integer of more than 64 bits")
    return number


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number too large")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {ids.shown(twice)} stands twice")
    return found


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")


def _told(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False)
    told = [
        f"{'.'.join(str(part) for part in problem['loc']) or 'body'}: {_words(problem)}"
        for problem in found[:_SHOWN_PROBLEMS]
    ]
    more = len(found) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more else "")


def _words(problem: ErrorDetails) -> str:
    """Return what is wrong; a pattern is for programs, its meaning for people."""
    if problem.get("ctx", {}).get("pattern") == f"^{ids.ID.pattern}$":
        return f"must be {ids.RULE}"
    return problem["msg"]


def task_id(text: str) -> str:
    """Return an id from a path. Raises Problem (422)."""
    wrong = ids.registered_problem(text)
    if wrong is not None:
        refuse(422, f"{ids.shown(text)} is no task id: {wrong}")
    return text


def project_name(text: str) -> str:
    """Return a project's name from a path. Raises Problem (422)."""
    wrong = ids.problem(text)
    if wrong is not None:
        refuse(422, f"{ids.shown(text)} is no project name: {wrong}")
    return text


def node_name(text: str) -> str:
    """Return a node's name from a path. Raises Problem (422)."""
    if _NODE.fullmatch(text) is None:
        refuse(422, f"{ids.shown(text)} is no node name")
    return text
