"""A stand-in for the wrapper that does what the spec's text tells it to do.

Only for what a real `serve` never does on purpose: keep silent, answer late or twice, talk
nonsense, die. Invoked like the wrapper; writes its pid to ROOT/serve.pid, and every line that it
reads to ROOT/lines.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

NOW = time.time()  # noqa: TID251 - runs as a program of its own


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def task(order: dict[str, Any], state: str) -> dict[str, Any]:
    return {
        "project": order["project"],
        "folder": order["folder"],
        "task_id": order["task_id"],
        "lease": order["lease"],
        "attempt": order["attempt"],
        "alive": state == "running",
        "status": {"status": state, "started_at": NOW},
        "pgid": 4711,
    }


def start(request: dict[str, Any]) -> None:
    order = request["order"]
    running = {"outcome": "running", "task": task(order, "running")}
    reply = {"id": request["id"], "ok": True, "result": running}
    what = order["spec"]
    if what == "silence":
        return
    if what == "die":
        sys.exit("died on request")
    if what == "error":
        reply = {"id": request["id"], "ok": False, "error": {"code": "x", "message": "broken"}}
    if what == "nonsense":
        reply = {"id": request["id"], "ok": True, "result": {"outcome": "running", "task": 7}}
    if what == "noise":
        print("this is no JSON\n[1]\n" + json.dumps({"id": 99999, "ok": True, "result": {}}))
    say(reply)
    if what == "twice":
        say(reply)
    if what == "ends":
        say({"event": "task", "now": NOW, "task": task(order, "completed")})
    if what == "mutters":
        say({"event": "task", "now": NOW, "task": {"no": "name"}})


def main() -> None:
    root = Path(sys.argv[sys.argv.index("--root") + 1])
    root.mkdir(parents=True, exist_ok=True)
    (root / "serve.pid").write_text(str(os.getpid()))
    sha256 = hashlib.sha256(Path(sys.argv[0]).read_bytes()).hexdigest()
    say({"event": "hello", "wrapper": sha256, "pid": os.getpid(), "protocol": 1})
    # A node whose clock is an hour ahead.
    say({"event": "state", "now": NOW + 3600, "tasks": []})
    held: list[dict[str, Any]] = []
    with (root / "lines").open("ab", buffering=0) as lines:
        for line in sys.stdin.buffer:
            lines.write(line)
            request = json.loads(line)
            op = request["op"]
            if op == "start" and request["order"]["spec"].startswith("reversed"):
                held.append(request)
                if request["order"]["spec"] == "reversed, last":
                    for waiting in reversed(held):
                        start(waiting)
            elif op == "start":
                start(request)
            elif op == "collect":
                tasks = [{"project": "p", "folder": "f", "alive": False, "status": None}]
                result = {"now": NOW + 3600, "tasks": tasks}
                say({"id": request["id"], "ok": True, "result": result})
            else:
                say({"id": request["id"], "ok": True, "result": {}})


main()
