"""/openapi.json, and schemathesis against it: no 500, no answer off its schema."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import trio

from tests.web.serving import Serving


async def test_the_description_covers_every_endpoint(door: Serving) -> None:
    schema = (await door.http.get("/openapi.json")).json()
    assert schema["openapi"].startswith("3.")
    paths = schema["paths"]
    for path in ("/v1/heartbeat", "/v1/task_report", "/v1/poll"):
        assert "requestBody" in paths[path]["post"]
        assert set(paths[path]["post"]["responses"]) >= {"200", "400", "413", "422"}
    for path in ("/v1/status", "/v1/workers", "/health", "/ready", "/api/v1/tasks/{task_id}"):
        assert "200" in paths[path]["get"]["responses"]
    names = {p["name"] for p in paths["/api/v1/tasks"]["get"]["parameters"]}
    assert names == {"status", "project", "node", "q", "limit", "offset"}


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_schemathesis_finds_nothing(door: Serving, caplog: pytest.LogCaptureFixture) -> None:
    await door.add_node("w1")
    await door.add_tasks("T1", "T2")
    found = await trio.run_process(
        [
            str(Path(sys.executable).with_name("st")), "run", f"{door.url}/openapi.json",
            "--max-examples", "10", "--seed", "1", "--generation-deterministic",
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,"
            "response_schema_conformance",
            "--phases", "examples,coverage,fuzzing",
        ],
        capture_stdout=True, capture_stderr=True, check=False,
        env={**os.environ, "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert found.returncode == 0, found.stdout.decode() + found.stderr.decode()
    assert "request failed" not in caplog.text
