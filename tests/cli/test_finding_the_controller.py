"""Which controller a command talks to, and what it says when there is none."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dispatch_controller.home import Controller, Home, write_controller
from tests.cli.conftest import Run
from tests.cli.controller import FakeController, Server

COMMANDS = (
    ("status",),
    ("tasks", "--json"),
    ("show", "S01"),
    ("logs", "S01"),
    ("retry", "S01"),
    ("cancel", "S01"),
    ("nodes",),
    ("nodes", "enable", "mini"),
    ("register", "/"),
)


@pytest.mark.parametrize("arguments", COMMANDS)
def test_without_a_controller_a_command_says_how_to_start_one(
    home: Home, run: Run, arguments: tuple[str, ...]
) -> None:
    result = run(*arguments)
    assert result.code == 69
    assert result.out == ""
    assert f"no controller is running on {home.root}" in result.err
    assert f"dispatch-controller run --home {home.root}" in result.err
    assert "Traceback" not in result.err


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_controller_json_left_over_from_a_kill_is_no_controller(home: Home, run: Run) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    write_controller(home, Controller(1, url, "", "1"))
    result = run("status")
    assert result.code == 69
    assert f"the controller at {url} does not answer" in result.err
    assert "dispatch-controller run" in result.err


def test_a_damaged_controller_json_is_named(home: Home, run: Run) -> None:
    home.controller.write_text("{")
    result = run("status")
    assert result.code == 69
    assert "controller.json is damaged" in result.err


def test_the_home_may_be_an_option(
    controller: FakeController, home: Home, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPATCH_HOME")
    monkeypatch.chdir(home.root.parent)
    assert run("status", "--home", "home").code == 0
    assert run("nodes", "--home", "home", "list").code == 0


def test_the_address_may_be_an_option(
    controller: FakeController, home: Home, run: Run, tmp_path: Path
) -> None:
    empty = str(tmp_path / "empty")
    assert run("status", "--url", controller.url, "--home", empty).code == 0
    assert run("status", "--url", f"{controller.url}/", "--home", empty).code == 0


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", "http://", "nonsense"])
def test_an_address_that_is_none_is_a_mistake_on_the_command_line(run: Run, url: str) -> None:
    result = run("status", "--url", url)
    assert result.code == 2
    assert "write http://HOST:PORT" in result.err


def test_proxies_do_not_come_between(
    controller: FakeController, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{free_port()}")
    assert run("status").code == 0


class TestToken:
    def test_it_is_sent_when_the_controller_asks(
        self, controller: FakeController, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        controller.token = "s3cret"
        monkeypatch.setenv("DISPATCH_API_TOKEN", "s3cret")
        assert run("tasks").code == 0
        assert run("status").code == 0

    @pytest.mark.parametrize("token", [None, "wrong"])
    def test_without_the_right_one_the_command_says_where_to_set_it(
        self,
        controller: FakeController,
        run: Run,
        monkeypatch: pytest.MonkeyPatch,
        token: str | None,
    ) -> None:
        controller.token = "s3cret"
        if token:
            monkeypatch.setenv("DISPATCH_API_TOKEN", token)
        result = run("tasks")
        assert result.code == 1
        assert "DISPATCH_API_TOKEN" in result.err


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate that names another machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mini.example.net")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2120, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "certificate.pem", tmp_path / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def test_tls_is_trusted_on_this_machine_by_the_certificate_in_the_settings(
    home: Home, run: Run, certificate: tuple[Path, Path]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = Server(FakeController())
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.thread.start()
    try:
        url = server.controller.url.replace("http:", "https:")
        write_controller(home, Controller(os.getpid(), url, "", "1"))
        result = run("status")
        assert result.code == 69
        assert "certificate" in result.err
        home.settings.write_text(
            f'tls_certificate = "{certificate[0]}"\ntls_key = "{certificate[1]}"\n'
        )
        assert run("status").code == 0
    finally:
        server.stop()


class Stranger(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[str]:
    """Another program that listens where a controller was."""
    server = HTTPServer(("127.0.0.1", 0), Stranger)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_another_program_on_the_port_is_no_controller(home: Home, run: Run, stranger: str) -> None:
    write_controller(home, Controller(os.getpid(), stranger, "", "1"))
    for command in ("tasks", "status"):
        result = run(command)
        assert result.code == 69
        assert "not as a controller does" in result.err


def test_settings_that_cannot_be_used_do_not_keep_one_from_asking(
    controller: FakeController, home: Home, run: Run
) -> None:
    home.settings.write_text("nonsense = 1\n")
    assert run("status").code == 0
