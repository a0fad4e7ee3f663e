"""A real agent program, from the package registry, works on a node against a scripted model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Starter
from tests.e2e.homes import QUICK, write_home
from tests.sshd import SshFleet

AGENT = "mini-swe-agent==2.4.6"
NEEDS = (
    "pyyaml", "requests", "jinja2", "pydantic", "litellm==1.106.2", "mcp", "tenacity", "rich",
    "python-dotenv",
    "typer", "platformdirs", "textual", "prompt_toolkit", "openai",
)  # fmt: skip
"""What it declares, but `datasets` (half a gigabyte), which only its benchmarks import; and `mcp`,
which this litellm imports without declaring it."""

COMMANDS = (
    "cat page.html && pwd",
    "sed -i s/one/ONE/ page.html && git --version > /dev/null; echo edited",
    "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT",
)


@pytest.fixture(scope="session")
def agent_bin() -> Path:
    """The folder with the agent's program: installed once, into an environment of its own."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "dispatch-controller-tests" / AGENT.replace("==", "-")
    ready = place / "installed"
    wanted = " ".join([AGENT, *NEEDS])
    if not ready.exists() or ready.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        pip = [str(place / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        for arguments in (["--no-deps", AGENT], NEEDS):
            done = subprocess.run([*pip, *arguments], capture_output=True, text=True, check=False)
            if done.returncode:
                message = f"{AGENT} cannot be installed: {done.stderr[-500:]}"
                if os.environ.get("CI") == "true":
                    pytest.fail(message)
                pytest.skip(message)
        ready.write_text(wanted)
    return place / "bin"


class _Model(ThreadingHTTPServer):
    """An OpenAI-compatible endpoint whose model says `COMMANDS`, one at each turn."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: _Model

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        content = json.dumps(_completion(turn, body["model"])).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _completion(turn: int, model: str) -> dict[str, Any]:
    call = {
        "id": f"call-{turn}",
        "type": "function",
        "function": {"name": "bash", "arguments": json.dumps({"command": COMMANDS[turn]})},
    }
    message = {"role": "assistant", "content": f"Step {turn}.", "tool_calls": [call]}
    return {
        "id": f"answer-{turn}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }


@contextmanager
def _model() -> Iterator[_Model]:
    server = _Model()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _settings(port: int) -> str:
    variables = {
        "MSWEA_CONFIGURED": "true",
        "MSWEA_COST_TRACKING": "ignore_errors",
        "MSWEA_MODEL_NAME": "openai/scripted",
        "OPENAI_API_BASE": f"http://127.0.0.1:{port}/v1",
        "OPENAI_API_KEY": "none",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in variables.items())
    return f"{QUICK}\n[executors.mini-swe-agent.modes.direct.env]\n{lines}\n"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_agent_changes_a_file_as_its_model_says_and_the_gates_pass(
    agent_bin: Path, controller_on: Starter, ssh_fleet: SshFleet, tmp_path: Path
) -> None:
    ssh_fleet.add("n1", path=_path(agent_bin))
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "page.html").write_text("one\n")
    project = {"sync_mode": "scp", "repo_local": str(folder), "verify": "grep -q ONE page.html"}
    with _model() as model:
        home = write_home(
            tmp_path / "home", {"n1": 1}, ssh_fleet, projects={"shop": project},
            quick=_settings(model.server_port), executor="mini-swe-agent",
        )  # fmt: skip
        specs = home / "specs" / "shop"
        specs.mkdir()
        (specs / "S01-page.md").write_text(
            "---\ntask_id: S01-page\nexecutor: mini-swe-agent\nmodifies: [page.html]\n---\n"
            "# Write the first line of page.html in capitals\n"
        )
        controller = controller_on(home).start()
        controller.register(home / "specs")
        row = controller.wait("S01-page", "completed", "deadletter", timeout=120)
        log = controller.command("logs", "S01-page").stdout
        assert row["status"] == "completed", (row, log)
    assert row["files_changed"] == 1
    (done,) = [e for e in controller.task("S01-page")["events"]
               if e["event_type"] == "task_completed"]  # fmt: skip
    assert set(done["details"]["gates"].values()) == {"passed"}
    (page,) = ssh_fleet.nodes["n1"].home.glob("dispatch/shop/code-*/page.html")
    assert page.read_text() == "ONE\n"
    first = str(model.asked[0]["messages"])
    assert "Write the first line of page.html in capitals" in first
    assert len(model.asked) == len(COMMANDS)
    assert "one" in str(model.asked[1]["messages"][-1])  # what the first command printed


def _path(first: Path) -> str:
    parts: Sequence[str] = (str(first), "/usr/local/bin", "/usr/bin", "/bin")
    return ":".join(parts)
