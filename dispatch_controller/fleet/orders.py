"""Orders in the form of the wrapper's protocol (docs/wrapper-protocol.md). Pure."""

from __future__ import annotations

from typing import Any

from dispatch_controller.model import StartOrder, TaskRef


def order_fields(order: StartOrder) -> dict[str, Any]:
    """Return the Order object of `start`."""
    executor = order.executor
    git = order.git
    return {
        "project": order.project,
        "task_id": order.task_id,
        "folder": order.folder,
        "lease": order.lease,
        "attempt": order.attempt,
        "sequence": order.sequence,
        "spec": order.spec,
        "context": order.context,
        "timeout": order.timeout,
        "executor": {
            "name": executor.name,
            "argv": list(executor.argv),
            "stdin": executor.stdin,
            "modes": [
                {
                    "api_mode": mode.api_mode,
                    "env": dict(mode.env),
                    "env_files": dict(mode.env_files),
                }
                for mode in executor.modes
            ],
            "rate_limit": executor.rate_limit,
            "login": executor.login,
        },
        "gates": list(order.gates),
        "verify": order.verify,
        "modifies": list(order.modifies),
        "write_set": order.write_set,
        "git": None if git is None else {"url": git.url, "branch": git.branch, "push": git.push},
        "code": order.code,
        "resume": None if order.resume is None else dict(order.resume),
    }


def ref_fields(ref: TaskRef) -> dict[str, Any]:
    """Return the fields that name one attempt."""
    return {"project": ref.project, "folder": ref.folder, "lease": ref.lease}
