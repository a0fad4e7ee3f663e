"""The older way to call a wrapper: arguments and environment, in the foreground.

`<wrapper> <project> <task_id> <spec_file> [repo_url] [branch]` with API_MODE, LEASE, ATTEMPT,
TASK_TIMEOUT_SECS and the executor's command in EXECUTOR_CMD (a JSON list, or words as a shell
quotes them). Root is DISPATCH_ROOT, else ~/dispatch. Same files, same gates.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import ending
from dispatch_controller.fleet.wrapper.admission import admit
from dispatch_controller.fleet.wrapper.attempt import Refused
from dispatch_controller.fleet.wrapper.launch import Post
from dispatch_controller.fleet.wrapper.order import BadOrder, Order
from dispatch_controller.fleet.wrapper.supervisor import supervise
from dispatch_controller.fleet.wrapper.taskdir import read_status

if TYPE_CHECKING:
    from typing import Any

    from dispatch_controller.fleet.wrapper.verbs import Verbs

DEFAULT_TIMEOUT = 3600
REFUSED = 75
"""Exit status of a refusal: EX_TEMPFAIL, an attempt that never was."""


def root() -> str:
    """The work_dir of older callers."""
    return os.environ.get("DISPATCH_ROOT") or "~/dispatch"


def run(verbs: Verbs, args: list[str]) -> int:
    """Supervise one attempt in the foreground. Returns the agent's exit code, 124 on time-out."""
    verbs.layout.make()
    try:
        order = Order(_order(args))
        order.inherit_env = True
        launch = admit(verbs.layout, verbs.fence, order, verbs.wrapper, lambda: True)
    except (BadOrder, ValueError, OSError) as e:
        print(f"refused: bad_order: {e}", file=sys.stderr)
        return 64
    except Refused as e:
        print(f"refused: {e.reason}: {e}", file=sys.stderr)
        return REFUSED
    ending.preload()
    # A lost SSH channel must not take the task with it. A job of a shell leads its group already
    # and cannot leave the session; the supervisor ignores the hang-up all the same.
    with contextlib.suppress(PermissionError):
        os.setsid()
    supervise(launch, Post(-1, 0), -1)
    status, _ = read_status(launch.dir_fd)
    if status is None or status.get("lease") != order.lease:
        print("refused: nothing was started", file=sys.stderr)
        return REFUSED
    with contextlib.suppress(OSError):
        print(f"{status['status']}: {status.get('reason') or 'ok'}", flush=True)
    code = status.get("exit_code")
    return 0 if status["status"] == "completed" else code or 1


def _order(args: list[str]) -> dict[str, Any]:
    project, task_id, spec_file, *rest = args
    env = os.environ
    with open(spec_file, encoding="utf-8") as file:
        spec = file.read()
    lease = env.get("LEASE") or f"{os.uname().nodename}:{os.urandom(4).hex()}"
    attempt = int(env.get("ATTEMPT") or 1)
    git = None
    if rest and rest[0]:
        node = os.uname().nodename
        push = f"task/{project}-{task_id}-{node}" + (f"-{attempt}" if attempt > 1 else "")
        git = {"url": rest[0], "branch": rest[1] if len(rest) > 1 else "main", "push": push}
    mode = {"api_mode": env.get("API_MODE") or "direct"}
    return {
        "project": project,
        "task_id": task_id,
        "folder": task_id,
        "lease": lease,
        "attempt": attempt,
        "spec": spec,
        "timeout": int(env.get("TASK_TIMEOUT_SECS") or DEFAULT_TIMEOUT),
        "executor": {"argv": _command(env.get("EXECUTOR_CMD")), "modes": [mode]},
        "gates": ["exit", "changed", "conflict_markers"],
        "git": git,
    }


def _command(text: str | None) -> list[str]:
    if not text:
        raise BadOrder("EXECUTOR_CMD: the executor's command is needed in the environment")
    if text.lstrip().startswith("["):
        command = json.loads(text)
        return command if isinstance(command, list) else []
    import shlex

    return shlex.split(text)
