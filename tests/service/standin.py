"""Stand-ins for launchctl and systemctl: programs on PATH that record how they were called."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

LAUNCHCTL = """
import json, sys
from pathlib import Path

here = Path(__file__).parent
state = json.loads((here / "state.json").read_text())
words = sys.argv[1:]
with (here / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
verb, target = words[0], words[1]
denied = state["denied"]


def end(code, text=""):
    (here / "state.json").write_text(json.dumps(state))
    if text:
        print(text, file=sys.stderr)
    sys.exit(code)


if verb in denied:
    end(1, f"{verb} failed: 1: Operation not permitted")
loaded, lingering = state["loaded"], state["lingering"]
if verb == "print":
    if target in lingering:
        lingering[target] -= 1
        if lingering[target] <= 0:
            del lingering[target]
            loaded.remove(target)
            end(113, "Could not find service in domain")
    if target not in loaded:
        end(113, "Could not find service in domain")
    print(f"{target} = {{\\n\\tactive count = 1\\n\\tstate = running\\n\\tpid = 4242\\n}}")
elif verb == "bootout":
    if target not in loaded:
        end(3, "Boot-out failed: 3: No such process")
    if state["slow"]:
        lingering[target] = state["slow"]
        end(36, "Boot-out failed: 36: Operation now in progress")
    loaded.remove(target)
elif verb == "bootstrap":
    if state["no_session"]:
        end(125, "Bootstrap failed: 125: Domain does not support specified action")
    name = Path(words[2]).stem
    if f"{target}/{name}" in loaded:
        end(5, "Bootstrap failed: 5: Input/output error")
    if state["raced"]:
        loaded.append(f"{target}/{name}")
        end(37, "Bootstrap failed: 37: Operation already in progress")
    loaded.append(f"{target}/{name}")
elif verb not in ("enable", "disable"):
    end(64, "Usage: launchctl")
end(0)
"""

SYSTEMCTL = """
import json, sys
from pathlib import Path

here = Path(__file__).parent
state = json.loads((here / "state.json").read_text())
words = [word for word in sys.argv[1:] if word != "--user"]
with (here / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if state["fails"].get(words[0]):
    print(state["fails"][words[0]], file=sys.stderr)
    sys.exit(1)
if words[0] == "show":
    active = state["active"]
    print("LoadState=" + ("loaded" if active or state["enabled"] else "not-found"))
    print("ActiveState=" + ("active" if active else "inactive"))
    print("SubState=" + ("running" if active else "dead"))
    print("MainPID=" + ("77" if active else "0"))
elif words[0] in ("restart", "start"):
    state["active"] = True
elif words[0] == "enable":
    state["enabled"] = True
elif words[0] == "disable":
    state["enabled"] = state["active"] = False
(here / "state.json").write_text(json.dumps(state))
"""


@dataclass(frozen=True)
class StandIn:
    """One program. `state` is what it believes; tests may change it."""

    folder: Path

    @property
    def calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def state(self) -> dict[str, object]:
        state: dict[str, object] = json.loads((self.folder / "state.json").read_text())
        return state

    def set(self, **state: object) -> None:
        (self.folder / "state.json").write_text(json.dumps({**self.state, **state}))

    def forget_calls(self) -> None:
        (self.folder / "calls").unlink(missing_ok=True)


def put_on_path(
    name: str, script: str, state: dict[str, object], tmp_path: Path, patch: pytest.MonkeyPatch
) -> StandIn:
    """Make a program that is found before any other of its name."""
    folder = tmp_path / f"standin-{name}"
    folder.mkdir()
    program = folder / name
    program.write_text(f"#!{sys.executable} -I\n{script}")
    program.chmod(0o755)
    (folder / "state.json").write_text(json.dumps(state))
    patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return StandIn(folder)


def launchctl(tmp_path: Path, patch: pytest.MonkeyPatch) -> StandIn:
    state: dict[str, object] = {
        "loaded": [],
        "lingering": {},
        "denied": [],
        "slow": 0,
        "no_session": False,
        "raced": False,
    }
    return put_on_path("launchctl", LAUNCHCTL, state, tmp_path, patch)


def systemctl(tmp_path: Path, patch: pytest.MonkeyPatch) -> StandIn:
    state: dict[str, object] = {"active": False, "enabled": False, "fails": {}}
    return put_on_path("systemctl", SYSTEMCTL, state, tmp_path, patch)
