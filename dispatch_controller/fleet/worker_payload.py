"""A start order as an HTTP worker takes it: the body of /v1/execute (nodes.md). Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

from dispatch_controller.fleet.orders import order_fields
from dispatch_controller.fleet.wrapper.blocks import script
from dispatch_controller.model import StartOrder

_PLACEHOLDER = re.compile(r"(\{(?:spec|prompt|script|shell)\})")


def execute_fields(order: StartOrder, work_dir: str) -> dict[str, Any]:
    """Return the JSON object for a worker whose root is `work_dir`.

    The first eight fields are what workers in the field know. `order`, whole, is for a worker
    with our own wrapper, which takes everything from it; others ignore what they do not know.
    """
    folder = f"{work_dir.rstrip('/')}/{order.project}/tasks/{order.folder}"
    modes = order.executor.modes
    env = {
        **(dict(modes[0].env) if modes else {}),
        "TASK_ID": order.task_id,
        "PROJECT": order.project,
        "ATTEMPT": str(order.attempt),
        "LEASE": order.lease,
        "TASK_DIR": folder,
        "OUTPUT_DIR": f"{folder}/output",
        "SPEC_FILE": f"{folder}/spec.md",
        "API_MODE": modes[0].api_mode if modes else "direct",
        "CI": "1",
    }
    return {
        "task_id": order.task_id,
        "command": _command(order),
        "timeout": order.timeout,
        "cwd": folder,
        "env": env,
        "lease_owner": order.lease,
        "spec_content": _spec(order),
        "setup_commands": ['mkdir -p "$OUTPUT_DIR"'],
        "attempt": order.attempt,
        "order": order_fields(order),
    }


def _spec(order: StartOrder) -> str:
    return f"{order.context}\n\n{order.spec}" if order.context else order.spec


def _command(order: StartOrder) -> str:
    """Return the executor's command as one shell line; every value in it is quoted."""
    values: dict[str, Callable[[], str]] = {
        "{spec}": lambda: '"$SPEC_FILE"',
        "{prompt}": lambda: shlex.quote(_spec(order)),
        "{script}": lambda: shlex.quote(script(order.spec)[0]),
        "{shell}": lambda: script(order.spec)[1],
    }

    def word(part: str) -> str:
        pieces = [piece for piece in _PLACEHOLDER.split(part) if piece]
        return "".join(values[p]() if p in values else shlex.quote(p) for p in pieces)

    source = '"$SPEC_FILE"' if order.executor.stdin else "/dev/null"
    return f"{' '.join(word(part) for part in order.executor.argv)} < {source}"
