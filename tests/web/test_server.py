"""The server: binding, TLS, slow and broken clients, the stop."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
import trio

from dispatch_controller.settings import Settings
from dispatch_controller.store import views
from dispatch_controller.store.connection import get_db
from dispatch_controller.web import intake, server
from dispatch_controller.web.server import ListenError, PortInUse, listen
from tests.web.raw import connect
from tests.web.serving import JSON, Serving, serving


async def test_port_0_tells_the_real_port(door: Serving) -> None:
    assert door.port > 0
    assert door.url == f"http://127.0.0.1:{door.port}"
    assert (await door.http.get("/ready")).json() == {"ready": True}


async def test_a_port_in_use_says_what_to_do(door: Serving) -> None:
    with pytest.raises(PortInUse, match=r"port \d+ of 127.0.0.1 is in use.*--port"):
        await listen("127.0.0.1", door.port)
    with pytest.raises(ListenError, match=r"cannot listen on no\.such"):
        await listen("no.such.host.invalid", 0)


async def test_the_socket_is_not_given_to_programs_that_are_started(door: Serving) -> None:
    listening = await listen("127.0.0.1", 0)
    with listening:
        assert not listening.get_inheritable()


async def test_a_stop_with_idle_connections_is_quick(door: Serving) -> None:
    async with connect(door.port) as answered, connect(door.port):
        assert (await answered.ask("GET", "/ready")).status == 200
        began = trio.current_time()
        door.context.stop.set()
        with trio.fail_after(5):
            await door.finished.wait()
        assert trio.current_time() - began < 1
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream("127.0.0.1", door.port)


async def test_a_request_in_flight_is_answered_at_a_stop(door: Serving) -> None:
    """Its body is still coming when the stop is asked for."""
    body = b'{"project":"p","task_id":"T1","modifies":["a"]}'
    async with connect(door.port) as raw:
        await raw.begin("POST", "/api/v1/tasks", **{"Content-Length": str(len(body))})
        await raw.stream.send_all(body[:10])
        await trio.testing.wait_all_tasks_blocked(0.05)
        door.context.stop.set()
        await raw.stream.send_all(body[10:])
        assert (await raw.reply()).status == 201
    assert door.row("T1")["status"] == "pending"


async def test_a_state_change_goes_on_when_its_client_hangs_up(door: Serving) -> None:
    path = door.context.settings.specs / "p" / "T1.md"
    body = b'{"project":"p","task_id":"T1","modifies":["a"]}'
    async with connect(door.port) as raw:
        await raw.begin("POST", "/api/v1/tasks", **{"Content-Length": str(len(body))})
        await raw.stream.send_all(body)
    with trio.fail_after(5):
        while not await door.context.store.read(views.id_of_spec, str(path)):
            await door.context.store.next_commit.wait()
    assert (await door.data("tasks/T1"))["status"] == "pending"


async def test_a_slow_body_is_given_up(door: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "BODY_SECONDS", 0.2)
    async with connect(door.port) as raw:
        await raw.begin("POST", "/v1/heartbeat", **{"Content-Length": "100"})
        await raw.stream.send_all(b'{"node_id":')
        reply = await raw.reply()
        assert (reply.status, list(reply.json())) == (408, ["error"])


async def test_a_head_that_does_not_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server._Config, "keep_alive_timeout", 0.2)
    async with serving(tmp_path) as door, connect(door.port) as raw:
        await raw.stream.send_all(b"POST /v1/heartbeat HTTP/1.1\r\nHost: loc")
        with trio.fail_after(5):
            assert await raw.stream.receive_some() == b""


async def test_500_slow_connections_do_not_stop_heartbeats(door: Serving) -> None:
    await door.add_node("w1")
    head = b"POST /v1/heartbeat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n"
    slow: list[trio.SocketStream] = []
    try:
        for n in range(500):
            stream = await trio.open_tcp_stream("127.0.0.1", door.port)
            slow.append(stream)
            await stream.send_all(head + b"\r\n{" if n % 2 else head)
        began = trio.current_time()
        for _ in range(20):
            assert (await door.post("/v1/heartbeat", node_id="w1")).status_code == 200
        assert trio.current_time() - began < 5
    finally:
        for stream in slow:
            await stream.aclose()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel has no such limit")
async def test_a_client_that_takes_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What hypercorn sends is shielded from a stop, so the kernel has to end it."""
    monkeypatch.setattr(server, "STALLED", 500)
    async with serving(tmp_path) as door:
        with get_db(door.context.store.path) as conn:
            conn.executemany(
                "INSERT INTO events (timestamp, event_type, details) VALUES ('x', 'note', ?)",
                [("y" * 10_000,)] * 1000,
            )
        with trio.socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await sock.connect(("127.0.0.1", door.port))
            await sock.send(b"GET /api/v1/events?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await sock.recv(1)
            door.context.stop.set()
            with trio.fail_after(5):
                await door.finished.wait()


@pytest.mark.parametrize(
    "bytes_",
    [
        b"\x00" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET \xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /?a=%ff&%ff=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://evil/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"* / HTTP/1.1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT evil:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000,
        b"POST /v1/poll HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/poll HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
        b"Content-Length: 2\r\n\r\n",
        b"POST /v1/poll HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: upgrade\r\n"
        b"HTTP2-Settings: !!!\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ],
)
async def test_rubbish_on_the_wire_hurts_nobody(
    door: Serving, bytes_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = door.dump()
    async with connect(door.port) as raw:
        await raw.stream.send_all(bytes_)
        await raw.stream.send_eof()
        with trio.move_on_after(2), trio.fail_after(5):
            while True:
                try:
                    if not await raw.stream.receive_some():
                        break
                except trio.BrokenResourceError:
                    break
    async with connect(door.port) as raw:
        await raw.stream.send_all(bytes_)
    assert (await door.http.get("/ready")).status_code == 200
    assert door.dump() == before
    assert [r.getMessage() for r in caplog.records if r.levelname in ("ERROR", "CRITICAL")] == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", str(key), "-out", str(certificate),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


async def test_tls(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    named = {"tls_certificate": certificate[0], "tls_key": certificate[1]}
    async with serving(tmp_path, **named) as door:
        assert door.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(certificate[0]))
        async with httpx.AsyncClient(base_url=door.url, verify=context, trust_env=False) as http:
            assert (await http.get("/ready")).status_code == 200
            origin = {"Origin": door.url, **JSON}
            answer = await http.post("/v1/heartbeat", json={"node_id": "w"}, headers=origin)
            assert answer.status_code == 200
        async with connect(door.port) as raw:
            await raw.stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with trio.fail_after(5):
                await raw.stream.receive_some()


async def test_a_key_that_does_not_fit_is_told_at_the_start(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    settings = Settings.model_validate(
        {"home": tmp_path, "tls_certificate": certificate[1], "tls_key": certificate[0]}
    )
    with socket.socket() as listening, pytest.raises(ListenError, match=r"TLS with .*key\.pem"):
        server._Config(settings, listening).check_tls(settings)
