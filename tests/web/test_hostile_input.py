"""Whatever is sent: a 4xx in JSON, nothing written, no traceback, memory flat."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.web.raw import connect
from tests.web.serving import Serving

ENDPOINTS: dict[str, dict[str, Any]] = {
    "/v1/heartbeat": {"node_id": "w1", "slots_free": 1, "max_slots": 2, "cpu": 1.0, "mem": 2.0},
    "/v1/poll": {"node_id": "w1", "slots_free": 1},
    "/v1/task_report": {"node_id": "w1", "task_id": "T1", "status": "COMPLETED", "ok": True},
    "/api/v1/tasks": {"project": "p", "task_id": "T9", "modifies": ["a"]},
    "/api/v1/register": {"paths": ["/nix"]},
}  # fmt: skip
REQUIRED = {
    "/v1/heartbeat": ["node_id"],
    "/v1/poll": ["node_id"],
    "/v1/task_report": ["node_id", "task_id", "status"],
    "/api/v1/tasks": ["project", "task_id"],
    "/api/v1/register": ["paths"],
}

BODIES: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"node_id=w1",
    "half": b'{"node_id": "w1"',
    "two": b'{"node_id": "w1"} {}',
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "text": b'"w1"',
    "broken UTF-8": b'{"node_id": "\xff\xfe"}',
    "UTF-16": '{"node_id": "w1"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"node_id": "w1"}',
    "a lone surrogate": rb'{"node_id": "\ud800", "task_id": "\ud800", "project": "\ud800"}',
    "NUL": rb'{"node_id": "a\u0000b", "task_id": "a\u0000b", "paths": ["/a\u0000b"]}',
    "NaN": b'{"node_id": NaN}',
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "a huge integer": b'{"node_id": ' + b"9" * 5000 + b"}",
    "a huge exponent": b'{"slots_free": 1e999999}',
    "half a character in a field nobody knows": rb'{"node_id": "w1", "more": ["\udcff"]}',
    "a huge integer in a field nobody knows": b'{"node_id": "w1", "more": 99999999999999999999}',
    "a huge number in a field nobody knows": b'{"node_id": "w1", "more": 1e400}',
    "a single quote": b"{'node_id': 'w1'}",
}
ODD_VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 1e300, 10**400, "", "x" * 100_000, "\x00", "../../etc", "a b",
    [], {}, [[]], {"a": {}}, ["x"] * 20_000, "💩", "ａ", "'; DROP TABLE tasks; --",
]  # fmt: skip


@pytest.fixture
async def hit(door: Serving) -> Serving:
    await door.add_node("w1")
    await door.add_tasks("T1")
    return door


async def send(door: Serving, path: str, body: bytes) -> tuple[int, Any]:
    async with connect(door.port) as raw:
        reply = await raw.ask("POST", path, body)
        assert reply.headers["content-type"] == "application/json"
        return reply.status, reply.json()


def is_error(path: str, body: Any) -> bool:  # noqa: ANN401
    if path.startswith("/v1/"):
        return list(body) == ["error"] and isinstance(body["error"], str)
    return body["ok"] is False and set(body["error"]) == {"code", "message"}


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_what_is_no_message_is_refused(hit: Serving, path: str) -> None:
    before = hit.dump()
    for name, content in BODIES.items():
        status, body = await send(hit, path, content)
        assert status in (400, 415, 422), (name, status)
        assert is_error(path, body), name
        assert len(json.dumps(body)) < 5000
    assert hit.dump() == before


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_a_key_that_stands_twice_is_refused(hit: Serving, path: str) -> None:
    before = hit.dump()
    good = json.dumps(ENDPOINTS[path])
    twice = good[:-1] + "," + good[1:]
    assert (await send(hit, path, twice.encode()))[0] == 400
    assert hit.dump() == before


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_fields_that_are_missing_or_wrong_are_refused(hit: Serving, path: str) -> None:
    before = hit.dump()
    for field in REQUIRED[path]:
        without = {key: value for key, value in ENDPOINTS[path].items() if key != field}
        assert (await send(hit, path, json.dumps(without).encode()))[0] == 422
        for odd in ODD_VALUES:
            if path == "/v1/task_report" and field == "task_id" and isinstance(odd, str):
                continue  # any text may be asked after; what is not there is 404
            if field == "node_id" and odd in ("💩", "ａ"):
                continue  # a node may be called so
            changed = {**ENDPOINTS[path], field: odd}
            status, body = await send(hit, path, json.dumps(changed).encode())
            assert status in (400, 422), (field, str(odd)[:40], status)
            assert is_error(path, body)
    assert hit.dump() == before


async def test_a_body_of_10_mb_is_refused_and_heard(hit: Serving) -> None:
    before = hit.dump()
    for path in ENDPOINTS:
        status, body = await send(hit, path, b"[" + b" " * 10_000_000 + b"]")
        assert status == 413
        assert is_error(path, body)
        async with connect(hit.port) as raw:
            await raw.begin("POST", path, **{"Transfer-Encoding": "chunked"})
            await raw.send(b"x" * 3_000_000)
            assert (await raw.reply()).status == 413
    assert hit.dump() == before


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
async def test_memory_stays_flat_under_large_bodies(hit: Serving) -> None:
    content = b"x" * 8_000_000
    for _ in range(3):
        await send(hit, "/v1/heartbeat", content)
    before = _resident()
    for _ in range(15):
        await send(hit, "/v1/heartbeat", content)
    assert _resident() - before < 40_000_000


def _mutations(rng: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    paths = sorted(ENDPOINTS)
    for _ in range(count):
        path = rng.choice(paths)
        message = dict(ENDPOINTS[path])
        for _ in range(rng.randint(1, 3)):
            message[
                rng.choice([*message, "running_tasks", "result", "timestamp", "worker_url"])
            ] = rng.choice([v for v in ODD_VALUES if v != 10**400])
        content = bytearray(json.dumps(message).encode()[:20_000])
        for _ in range(rng.randint(0, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        yield path, bytes(content)


async def test_random_changes_never_end_in_a_mistake(
    hit: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(hit.port) as raw:
        for path, content in _mutations(random.Random(7), 400):
            reply = await raw.ask("POST", path, content)
            assert reply.status < 500, (path, content[:500], reply.body)
            raw.protocol.start_next_cycle()
    assert "request failed" not in caplog.text


async def test_odd_queries_and_paths_never_end_in_a_mistake(hit: Serving) -> None:
    texts = ["%00", "%ff", "%F0%9F", "..", "9" * 400, "-1", "1e9", "%C0%80", "a&a", "[]", "%22"]
    for text in texts:
        for target in (
            f"/api/v1/tasks?status={text}", f"/api/v1/tasks?q={text}",
            f"/api/v1/tasks?limit={text}", f"/api/v1/tasks?offset={text}&{text}",
            f"/api/v1/events?before={text}", f"/api/v1/tasks/{text}",
            f"/api/v1/tasks/T1/log?offset={text}", f"/api/v1/projects/{text}", f"/{text}",
        ):  # fmt: skip
            async with connect(hit.port) as raw:
                reply = await raw.ask("GET", target)
                assert reply.status < 500, target
                json.loads(reply.body)
