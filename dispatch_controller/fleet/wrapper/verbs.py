"""What each request does, shared by `serve` and by the one-shot commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import control, log
from dispatch_controller.fleet.wrapper.admission import admit
from dispatch_controller.fleet.wrapper.attempt import Refused
from dispatch_controller.fleet.wrapper.cleanup import cleanup, salvage
from dispatch_controller.fleet.wrapper.clock import now
from dispatch_controller.fleet.wrapper.fence import Fence, word
from dispatch_controller.fleet.wrapper.layout import BadName, checked_lease, checked_name
from dispatch_controller.fleet.wrapper.order import BadOrder, Order
from dispatch_controller.fleet.wrapper.probe import probe
from dispatch_controller.fleet.wrapper.report import Reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from dispatch_controller.fleet.wrapper.launch import Launch
    from dispatch_controller.fleet.wrapper.layout import Layout

NO_LEASE = "-"
"""Stands in acknowledgements for the lease of a status that an older wrapper wrote without one."""
SLOW = ("probe", "cleanup", "salvage")
"""Verbs that run programs or copy files: `serve` answers them from a process of their own."""


class BadRequest(ValueError):
    """A request that lacks a field or has a wrong one; the text names it."""


class Verbs:
    """The verbs over one ROOT for one owner."""

    def __init__(self, layout: Layout, wrapper: str) -> None:
        self.layout = layout
        self.wrapper = wrapper
        self.fence = Fence(layout)
        self.reporter = Reporter(layout)

    def admit(self, value: object, still_named: Callable[[], bool]) -> Launch:
        """Decide on a start. Raises Refused."""
        try:
            order = Order(value)
        except BadOrder as e:
            raise Refused("bad_order", str(e)) from e
        self.reporter.fresh()
        return admit(self.layout, self.fence, order, self.wrapper, still_named)

    def refusal(self, value: object, refused: Refused) -> dict[str, Any]:
        """The result of a start that was refused."""
        task = None
        if isinstance(value, dict):
            try:
                project = checked_name(value.get("project"), "project")
                folder = checked_name(value.get("folder"), "folder")
                task = self.reporter.task(project, folder, quick=True)
            except BadName:
                task = None
        message = str(refused)
        return {"outcome": "refused", "reason": refused.reason, "message": message, "task": task}

    def answer(self, op: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The result of any verb but start, kill and collect. Raises BadRequest, OSError."""
        try:
            return self._answer(op, request)
        except BadName as e:
            raise BadRequest(str(e)) from e

    def kill(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """As control.kill. Raises BadRequest, OSError."""
        try:
            project, folder, lease = _ref(request)
        except BadName as e:
            raise BadRequest(str(e)) from e
        self.reporter.fresh()
        return control.kill(self.layout, self.reporter, project, folder, lease, grace(request))

    def see_through(self, request: Mapping[str, Any]) -> None:
        """As control.see_through: takes until the attempt has ended."""
        project, folder, lease = _ref(request)
        control.see_through(self.layout, project, folder, lease, grace(request))

    def open_tasks(self, known: list[tuple[str, str]] | None = None) -> list[dict[str, Any]]:
        """The Tasks of this owner (or of none) that are live or not yet acknowledged."""
        self.reporter.fresh()
        candidates = self.layout.all_tasks() if known is None else iter(known)
        tasks = (self.reporter.task(*key) for key in candidates)
        return [task for task in tasks if task is not None and self.is_open(task)]

    def is_open(self, task: Mapping[str, Any]) -> bool:
        """Whether this owner is to be told about a task."""
        owner = (task["status"] or {}).get("owner")
        if owner is not None and owner != self.layout.owner:
            return False
        key = word(task["project"], task["folder"], str(task["lease"] or NO_LEASE))
        return bool(task["alive"]) or key not in self.fence.acks

    def _answer(self, op: str, request: Mapping[str, Any]) -> dict[str, Any]:
        if op == "ping":
            return {}
        if op == "collect":
            return {"now": now(), "tasks": self.open_tasks()}
        if op == "void":
            self.reporter.fresh()
            return control.void(self.layout, self.fence, self.reporter, *_ref(request))
        if op == "ack":
            words = [_acked(ref) for ref in _list(request, "leases")]
            self.fence.acks.add(words, durable=False)
            return {}
        if op == "log":
            return self._log(request)
        if op == "probe":
            programs = [checked_name(p, "programs") for p in request.get("programs") or []]
            return probe(self.layout.root, self.wrapper, programs)
        if op == "cleanup":
            return cleanup(self.layout, self.fence, _list(request, "tasks"))
        if op == "salvage":
            return salvage(self.layout, *_task(request))
        raise BadRequest(f"op: {op!r} is not known to this wrapper")

    def _log(self, request: Mapping[str, Any]) -> dict[str, Any]:
        name = request.get("name", "task.log")
        if name not in log.NAMES:
            raise BadRequest(f"name: {name!r} is none of {log.NAMES}")
        offset, limit = request.get("offset", 0), request.get("limit", 65536)
        if not isinstance(offset, int) or not isinstance(limit, int):
            raise BadRequest("offset, limit: whole numbers are needed")
        return log.read_log(self.layout.task(*_task(request)), name, offset, limit)


def grace(request: Mapping[str, Any]) -> float:
    """Seconds between TERM and KILL that a `kill` asks for."""
    value = request.get("grace", 30)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 3600:
        raise BadRequest("grace: seconds from 0 to 3600 are needed")
    return float(value)


def _task(request: Mapping[str, Any]) -> tuple[str, str]:
    project = checked_name(request.get("project"), "project")
    return project, checked_name(request.get("folder"), "folder")


def _ref(request: Mapping[str, Any]) -> tuple[str, str, str]:
    return (*_task(request), checked_lease(request.get("lease")))


def _acked(request: Mapping[str, Any]) -> str:
    lease = request.get("lease") or NO_LEASE
    return word(*_task(request), checked_lease(lease))


def _list(request: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    value = request.get(field)
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise BadRequest(f"{field}: a list of objects is needed")
    return value
