"""Real OpenSSH servers on loopback: one for each node of a test, each with its own home folder.

They run unprivileged too: own configuration, host key and port, all under the test's tmp_path.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dispatch_controller.fleet.ssh_settings import SshSettings

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass(slots=True)
class SshNode:
    """One sshd. `home` is HOME of everything it starts."""

    name: str
    folder: Path
    client_key: Path
    path: str
    port: int = 0
    log: list[str] = field(default_factory=list)
    _process: subprocess.Popen[str] | None = None

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def start(self) -> None:
        """Start the server, on the port it had before, and return once it listens."""
        self.home.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "host_key").exists():
            self.new_host_key()
        for _ in range(3):  # another process may take the port that was just found free
            self.port = self.port or _free_port()
            self._write_config()
            if self._launch():
                return
            self.port = 0
        raise AssertionError("sshd does not start: " + "\n".join(self.log))

    def _launch(self) -> bool:
        assert SSHD is not None
        ready = threading.Event()
        process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

        def read() -> None:
            assert process.stderr is not None
            with process.stderr:
                for line in process.stderr:
                    self.log.append(line.rstrip())
                    if "Server listening" in line:
                        ready.set()
            ready.set()

        threading.Thread(target=read, daemon=True).start()
        ready.wait(10)
        if process.poll() is not None or not any("listening" in line for line in self.log):
            process.kill()
            process.wait()
            return False
        self._process = process
        return True

    def _write_config(self) -> None:
        folder = self.folder
        (folder / "authorized_keys").write_text(self.client_key.with_suffix(".pub").read_text())
        (folder / "sshd_config").write_text(
            f"Port {self.port}\n"
            "ListenAddress 127.0.0.1\n"
            f"HostKey {folder}/host_key\n"
            "PidFile none\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\n"
            "StrictModes no\n"
            "UsePAM no\n"
            "PasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\n"
            "PermitRootLogin yes\n"
            "MaxStartups 100\n"
            "AcceptEnv *\n"
            f'SetEnv HOME={self.home} "PATH={self.path}"\n'
        )

    def stop(self) -> None:
        """Stop listening; sessions that are open go on."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def sessions(self) -> list[int]:
        """Return the pids of the server's session processes."""
        assert self._process is not None
        listing = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True
        ).stdout
        rows = [line.split(None, 2) for line in listing.splitlines()]
        family = {self._process.pid}
        found = []
        for pid, parent, command in sorted(rows, key=lambda row: int(row[0])):
            if int(parent) in family and "sshd" in command:
                family.add(int(pid))
                found.append(int(pid))
        return found

    def crash(self) -> None:
        """Stop listening and kill every session: the machine is gone from the network."""
        sessions = self.sessions()
        self.stop()
        _kill(sessions)

    def kill_sessions(self) -> None:
        """Kill every session process, as a crash of sshd would."""
        _kill(self.sessions())

    def new_host_key(self) -> None:
        """Give the machine another host key; counts from the next start on."""
        key = self.folder / "host_key"
        for old in (key, key.with_suffix(".pub")):
            old.unlink(missing_ok=True)
        make_key(key)

    def processes(self) -> list[int]:
        """Return the pids of what runs with this node's home (Linux only, else nothing)."""
        wanted = f"HOME={self.home}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in environment:
                found.append(int(entry.name))
        return sorted(found)

    def close(self) -> None:
        """Stop the server and end what its sessions left running."""
        if self._process is not None:
            self.crash()
        _kill(self.processes())


@dataclass(slots=True)
class SshFleet:
    """Servers of a test, and the client's files that lead to them."""

    folder: Path
    nodes: dict[str, SshNode] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def settings(self) -> SshSettings:
        return SshSettings(config=self.config, known_hosts=self.known_hosts)

    def add(self, name: str, *, path: str | None = None, trust: bool = True) -> SshNode:
        """Start a server and name it in the SSH config; its host key is known if `trust`."""
        key = self.folder / "client_key"
        if not key.exists():
            make_key(key)
        folder = self.folder / name
        folder.mkdir()
        node = SshNode(name, folder, key, path or os.environ["PATH"])
        self.nodes[name] = node
        node.start()
        if trust:
            self.trust(node)
        with self.config.open("a") as config:
            config.write(
                f"Host {name}\n  HostName 127.0.0.1\n  Port {node.port}\n  IdentityFile {key}\n"
                "  ForwardAgent yes\n  SendEnv *\n  SetEnv SECRET=1\n  RequestTTY force\n\n"
            )
        return node

    def trust(self, node: SshNode) -> None:
        public = (node.folder / "host_key.pub").read_text().split()
        with self.known_hosts.open("a") as known:
            known.write(f"[127.0.0.1]:{node.port} {public[0]} {public[1]}\n")

    def close(self) -> None:
        for node in self.nodes.values():
            node.close()


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def make_key(path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True
    )


def require_sshd() -> None:
    """Skip without OpenSSH's server; in CI its absence is a failure."""
    if SSHD is None:
        message = "needs OpenSSH's server (apt-get install openssh-server)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    if os.geteuid() == 0:
        # Only a privileged sshd asks for this folder; packages make it at boot.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)


@pytest.fixture
def ssh_fleet(tmp_path: Path) -> Iterator[SshFleet]:
    """A fleet without nodes; `add` starts them, the end of the test stops them."""
    require_sshd()
    folder = tmp_path / "ssh"
    folder.mkdir()
    fleet = SshFleet(folder)
    try:
        yield fleet
    finally:
        fleet.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def require_program(name: str) -> str:
    """Return a program's path; skip without it, but in CI its absence is a failure."""
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"needs {name}")
        pytest.skip(f"needs {name}")
    return found
