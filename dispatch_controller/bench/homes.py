"""A controller on a home of its own, for measuring; and an sshd on loopback for it to reach."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class BenchFailed(Exception):
    """Something that was to be measured did not come to its end."""


def write_home(home: Path, nodes: list[dict[str, Any]], settings: str = "") -> None:
    """Write nodes, settings and a project `p` whose only gate is the exit code."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "nodes.json").write_text(json.dumps({"nodes": nodes}))
    (home / "projects.json").write_text(json.dumps({"p": {"gates": ["exit"]}}))
    (home / "dispatch.toml").write_text(settings)
    (home / "specs" / "p").mkdir(parents=True, exist_ok=True)


def write_specs(home: Path, number: int, script: str = "true", prefix: str = "T") -> list[Path]:
    """Write so many independent shell specs."""
    written = []
    for n in range(number):
        path = home / "specs" / "p" / f"{prefix}{n:05}.md"
        path.write_text(
            f"---\ntask_id: {prefix}{n:05}\nproject: p\nexecutor: shell\n"
            f"modifies: [{prefix}{n}.txt]\n---\n```sh\n{script}\n```\n"
        )
        written.append(path)
    return written


@contextmanager
def controller(home: Path) -> Iterator[httpx.Client]:
    """Run a controller; yields a client of its API; stops it with SIGTERM."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith("DISPATCH_")}
    with (home / "controller.err").open("wb") as complaints, subprocess.Popen(
        [sys.executable, "-m", "dispatch_controller", "run", "--home", str(home), "--port", "0"],
        stdout=subprocess.PIPE, stderr=complaints, text=True, env=environment,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None  # noqa: S101 - asked for above
            line = process.stdout.readline()
            if not line.startswith("listening on "):
                raise BenchFailed((home / "controller.err").read_text()[-2000:])
            with httpx.Client(base_url=line.split()[-1], timeout=120) as client:
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def wait_for_nodes(client: httpx.Client, number: int) -> None:
    """Return once so many nodes are reachable."""
    deadline = time.monotonic() + 60
    while sum(bool(row["reachable"]) for row in _data(client, "/api/v1/nodes")) < number:
        if time.monotonic() > deadline:
            raise BenchFailed("the nodes were not reached within 60 s")
        time.sleep(0.1)


def register(client: httpx.Client, home: Path) -> None:
    answer = client.post("/api/v1/register", json={"paths": [str(home / "specs")], "project": None})
    answer.raise_for_status()


def wait_completed(client: httpx.Client, number: int, limit: float = 300) -> None:
    """Return once so many tasks are completed."""
    deadline = time.monotonic() + limit
    while client.get("/v1/status").json()["tasks"]["completed"] < number:
        if time.monotonic() > deadline:
            raise BenchFailed(f"{number} tasks were not completed within {limit:.0f} s")
        time.sleep(0.02)


def _data(client: httpx.Client, path: str) -> Any:  # noqa: ANN401 - JSON
    return client.get(path).raise_for_status().json()["data"]


@contextmanager
def loopback_sshd(folder: Path) -> Iterator[str]:
    """Run an sshd for this user; yields settings that lead to it as host `loop`.

    Raises BenchFailed where there is no sshd.
    """
    if SSHD is None:
        raise BenchFailed("no sshd here: install openssh-server")
    for key in ("host_key", "client_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin yes\nMaxStartups 200\nMaxSessions 100\n"
    )
    (folder / "ssh_config").write_text(
        f"Host loop\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {folder}/client_key\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n"
    )
    public = (folder / "host_key.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(public)}\n")
    with subprocess.Popen(
        [SSHD, "-D", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL
    ) as process:
        try:
            _wait_for_port(port)
            yield (f'[ssh]\nconfig = "{folder}/ssh_config"\nknown_hosts = "{folder}/known_hosts"\n')
        finally:
            process.terminate()


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise BenchFailed("sshd does not listen")
