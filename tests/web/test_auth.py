"""Who gets in (http.md): decided on heads, then seen on a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatch_controller.settings import Settings, SettingsError, load_settings
from dispatch_controller.web.auth import WORKER_PATHS, Caller, Gate, Refusal
from tests.web.conftest import TOKEN
from tests.web.serving import Serving, serving

OPEN = Gate(Settings(home=Path("/h")))
GUARDED = Gate(
    Settings.model_validate(
        {
            "home": "/h",
            "host": "0.0.0.0",
            "api_token": TOKEN,
            "legacy_worker_networks": ["10.1.0.0/16", "fd00::/8"],
        }
    )
)
RIGHT = f"Bearer {TOKEN}"


def admit(
    gate: Gate, method: str = "GET", path: str = "/v1/status", address: str = "127.0.0.1",
    **headers: str,
) -> Caller | int:  # fmt: skip
    named = {"host": "localhost:8080", **headers}
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in named.items()]
    found = gate.admit(method, path, "http", pairs, address)
    return found.status if isinstance(found, Refusal) else found


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080", "[::1]"]
)
def test_loopback_answers_to_loopback_names(host: str) -> None:
    assert admit(OPEN, host=host) == Caller("127.0.0.1")
    assert admit(OPEN, "POST", host=host) == Caller("127.0.0.1")


@pytest.mark.parametrize(
    "host",
    [
        "", "example.com", "example.com:8080", "localhost.example.com", "127.0.0.1.nip.io",
        "192.168.0.1", "localhost@example.com", "example.com#localhost", "localhost:x",
        "localhost localhost", "[::1", "0.0.0.0", "[::]",
    ],
)  # fmt: skip
def test_loopback_refuses_every_other_name(host: str) -> None:
    assert admit(OPEN, host=host) == 403


def test_a_request_without_one_host_is_refused() -> None:
    for hosts in ([], [(b"host", b"localhost"), (b"host", b"localhost")]):
        assert isinstance(OPEN.admit("GET", "/", "http", hosts, "127.0.0.1"), Refusal)


@pytest.mark.parametrize(
    ("origin", "taken"),
    [
        ("http://localhost:8080", True),
        ("http://LOCALHOST:8080", True),
        ("https://localhost:8080", False),
        ("http://localhost", False),
        ("http://localhost:8081", False),
        ("http://127.0.0.1:8080", False),
        ("http://example.com", False),
        ("null", False),
        ("", False),
        ("file://", False),
        ("http://[::1", False),
    ],
)
def test_a_state_change_from_another_origin_is_refused(origin: str, taken: bool) -> None:
    wanted = Caller("127.0.0.1") if taken else 403
    for gate in (OPEN, GUARDED):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert admit(gate, method, origin=origin, authorization=RIGHT) == wanted
        assert admit(gate, "GET", origin=origin, authorization=RIGHT) == Caller("127.0.0.1")


@pytest.mark.parametrize(
    "given",
    [
        "", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}", f"Token {TOKEN}", TOKEN, f"Bearer {TOKEN} {TOKEN}", "Bearer \xff\xfe",
    ],
)  # fmt: skip
def test_a_token_that_is_not_the_right_one(given: str) -> None:
    for path in ("/v1/status", "/v1/heartbeat", "/api/v1/tasks", "/health", "/metrics", "/"):
        assert admit(GUARDED, path=path, authorization=given) == 401
    assert admit(GUARDED) == 401


def test_the_right_token_opens_everything() -> None:
    for path in ("/v1/status", "/v1/heartbeat", "/api/v1/tasks", "/health", "/metrics", "/"):
        assert admit(GUARDED, path=path, authorization=RIGHT) == Caller("127.0.0.1")
        assert admit(GUARDED, "POST", path, authorization=f"bearer {TOKEN}") == Caller("127.0.0.1")
    twice = [(b"authorization", RIGHT.encode())] * 2
    assert isinstance(GUARDED.admit("GET", "/", "http", twice, "127.0.0.1"), Refusal)


def test_legacy_networks_open_three_paths_and_no_other() -> None:
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::7"):
        plain = "10.1.2.3" if "10.1" in address else address
        for path in WORKER_PATHS:
            assert admit(GUARDED, "POST", path, address) == Caller(plain, legacy=True)
            assert admit(GUARDED, "GET", path, address) == 401
            assert admit(GUARDED, "POST", path, "10.2.0.1") == 401
            forwarded = {"x-forwarded-for": "10.1.2.3", "forwarded": "for=10.1.2.3"}
            assert admit(GUARDED, "POST", path, "10.2.0.1", **forwarded) == 401
            assert admit(GUARDED, "POST", path, address, authorization="Bearer wrong") == 401
            assert admit(GUARDED, "POST", path, address, authorization=RIGHT) == Caller(plain)
        for path in ("/v1/status", "/v1/workers", "/api/v1/register", "/v1/heartbeat/", "/"):
            assert admit(GUARDED, "POST", path, address) == 401


def test_without_a_token_nobody_listens_to_other_machines(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="token"):
        load_settings(tmp_path, {"host": "0.0.0.0"}, {})


async def test_a_loopback_server_refuses_foreign_hosts_and_origins(door: Serving) -> None:
    before = door.dump()
    foreign = await door.http.get("/api/v1/tasks", headers={"Host": "evil.example"})
    assert foreign.status_code == 403
    assert foreign.json()["error"]["code"] == "forbidden"
    body = {"project": "p", "task_id": "T1", "modifies": ["a"]}
    for origin in ("http://evil.example", "null", "http://localhost:1"):
        answer = await door.http.post("/api/v1/tasks", json=body, headers={"Origin": origin})
        assert answer.status_code == 403
    answer = await door.http.post("/v1/heartbeat", json={}, headers={"Origin": "null"})
    assert answer.json().keys() == {"error"}
    assert door.dump() == before
    own = await door.http.post("/api/v1/tasks", json=body, headers={"Origin": door.url})
    assert own.status_code == 201


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""],
)
async def test_a_state_change_needs_json(door: Serving, kind: str) -> None:
    content = b'{"project":"p","task_id":"T1","modifies":["a"]}'
    for path in ("/api/v1/tasks", "/v1/heartbeat"):
        headers = {"Content-Type": kind} if kind else {}
        answer = await door.http.post(path, content=content, headers=headers)
        assert answer.status_code == 415
    charset = {"Content-Type": "application/json; charset=utf-8"}
    assert (
        await door.http.post("/api/v1/tasks", content=content, headers=charset)
    ).status_code == 201


async def test_a_guarded_server_wants_its_token(guarded: Serving) -> None:
    for path in ("/v1/status", "/api/v1/tasks", "/health", "/metrics", "/openapi.json", "/nix"):
        refused = await guarded.http.get(path)
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        wrong = await guarded.http.get(path, headers={"Authorization": "Bearer no"})
        assert wrong.status_code == 401
        right = await guarded.http.get(path, headers={"Authorization": RIGHT})
        assert right.status_code == (404 if path == "/nix" else 200)
    assert TOKEN not in refused.text


async def test_a_worker_of_a_legacy_network_is_bound_to_its_address(tmp_path: Path) -> None:
    networks = ["127.0.0.0/8"]
    async with serving(
        tmp_path, host="0.0.0.0", api_token=TOKEN, legacy_worker_networks=networks
    ) as door:
        for name in ("w1", "w2"):
            await door.add_node(name)
        await door.add_node("w3", ssh_host="dispatch@127.0.0.3:22")

        async def beat(node: str, **more: object) -> int:
            return (await door.post("/v1/heartbeat", node_id=node, **more)).status_code

        assert await beat("w1") == 200
        assert await beat("w1", worker_url="http://127.0.0.1:9000") == 200
        assert await beat("w1", worker_url="http://127.0.0.2:9000") == 403
        assert await beat("w1", worker_url="http://localhost:9000") == 403
        assert await beat("w3") == 403
        door.context.workers.configured = {"w2": "http://127.0.0.2:8081"}
        assert await beat("w2") == 403
        for path, more in (
            ("/v1/poll", {}),
            ("/v1/task_report", {"task_id": "T1", "status": "COMPLETED", "ok": True}),
        ):
            answer = await door.post(path, node_id="w2", **more)
            assert answer.status_code == 403
            assert "worker_url" in answer.json()["error"]
        assert (await door.post("/api/v1/tasks/T1/retry")).status_code == 401
        trusted = {"Authorization": RIGHT}
        answer = await door.http.post("/v1/heartbeat", json={"node_id": "w2"}, headers=trusted)
        assert answer.status_code == 200
