"""The verbs as one-shot commands: one request on standard input, one reply and a closing line."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import ending
from dispatch_controller.fleet.wrapper.attempt import Refused
from dispatch_controller.fleet.wrapper.fence import Busy
from dispatch_controller.fleet.wrapper.launch import Post
from dispatch_controller.fleet.wrapper.supervisor import detach, supervise
from dispatch_controller.fleet.wrapper.taskdir import encode
from dispatch_controller.fleet.wrapper.verbs import BadRequest, Verbs

if TYPE_CHECKING:
    from typing import Any

VERBS = (
    "start", "void", "kill", "collect", "probe", "ack", "cleanup", "log", "salvage",
)  # fmt: skip


def oneshot(verbs: Verbs, op: str) -> int:
    """Answer one request. Returns the exit status."""
    verbs.layout.make()
    try:
        request = json.loads(sys.stdin.buffer.read() or b"{}")
        if not isinstance(request, dict):
            raise BadRequest("an object is needed on standard input")
        reply: dict[str, Any] = {"ok": True, "result": _result(verbs, op, request)}
    except (ValueError, OSError, Busy) as e:
        code = "bad_request" if isinstance(e, ValueError) else "wrapper_error"
        reply = {"ok": False, "error": {"code": code, "message": f"{type(e).__name__}: {e}"}}
    sys.stdout.buffer.write(encode(reply) + b"\n" + encode({"end": True}) + b"\n")
    sys.stdout.buffer.flush()
    return 0


def _result(verbs: Verbs, op: str, request: dict[str, Any]) -> dict[str, Any]:
    if op == "start":
        return _start(verbs, request.get("order"))
    if op == "kill":
        result, follow = verbs.kill(request)
        if follow and os.fork() == 0:
            try:
                detach([])
                verbs.see_through(request)
            finally:
                os._exit(0)
        return result
    return verbs.answer(op, request)


def _start(verbs: Verbs, order: object) -> dict[str, Any]:
    try:
        launch = verbs.admit(order, lambda: True)
    except Refused as e:
        return verbs.refusal(order, e)
    told, tell = os.pipe()
    ending.preload()
    if os.fork() == 0:
        try:
            detach([launch.dir_fd, tell])
            supervise(launch, Post(tell, 0), -1)
        finally:
            os._exit(0)
    os.close(tell)
    os.close(launch.dir_fd)
    with os.fdopen(told, "rb") as file:
        line = file.readline()
    project, folder = launch.order.project, launch.order.folder
    if not line.endswith(b"\n"):
        gone = Refused("wrapper_error", "the supervisor ended before it could start anything")
        task = verbs.reporter.task(project, folder)
        begun = task is not None and task["lease"] == launch.order.lease
        return {"outcome": "running", "task": task} if begun else verbs.refusal(order, gone)
    _, outcome, reason, message = json.loads(line)
    if outcome != "running":
        return verbs.refusal(order, Refused(reason, message))
    return {"outcome": "running", "task": verbs.reporter.task(project, folder)}
