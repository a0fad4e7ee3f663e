"""From settings and the user's SSH config to the options of one connection. Blocking."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import asyncssh

from dispatch_controller.fleet.ssh_settings import SshSettings, SshTarget

KEEPALIVE_SECONDS = 15
KEEPALIVE_COUNT = 3


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that had to be read from disk before a connection is opened."""

    options: asyncssh.SSHClientConnectionOptions
    known_hosts: asyncssh.SSHKnownHosts
    known_hosts_file: Path
    """Where a person would add a host key."""
    jumps: tuple[str, ...]
    """`ProxyJump` of the config, in the order in which to connect."""

    @property
    def host(self) -> str:
        return str(self.options.host)

    @property
    def port(self) -> int:
        return int(self.options.port)

    @property
    def known_name(self) -> str:
        """The name under which the host's key is filed."""
        return str(self.options.host_key_alias or self.options.host)


def prepare(settings: SshSettings, target: SshTarget) -> Prepared:
    """Read config, known_hosts and keys. Raises ValueError or OSError with a text for people.

    What could hand the node something of this machine (agent forwarding, environment, X11, a
    terminal) is off whatever the config says, and so are passwords: nobody is there to type one.
    """
    config = settings.config or Path("~/.ssh/config").expanduser()
    kwargs: dict[str, object] = {}
    if target.user is not None:
        kwargs["username"] = target.user
    if target.port is not None:
        kwargs["port"] = target.port
    if settings.identity_files:
        kwargs["client_keys"] = [str(path.expanduser()) for path in settings.identity_files]
    options = asyncssh.SSHClientConnectionOptions(
        host=target.host,
        config=[str(config)] if config.is_file() else None,
        ignore_encrypted=True,
        agent_forwarding=False,
        env={},
        send_env=[],
        request_pty=False,
        command=None,
        x11_forwarding=False,
        gss_host=None,
        password_auth=False,
        kbdint_auth=False,
        x509_trusted_certs=None,
        x509_trusted_cert_paths=[],
        connect_timeout=None,
        login_timeout=settings.connect_timeout,
        keepalive_interval=KEEPALIVE_SECONDS,
        keepalive_count_max=KEEPALIVE_COUNT,
        encoding=None,
        **kwargs,
    )
    files = _known_hosts_files(settings, options, config)
    known_hosts = _read_known_hosts(files)
    jump = options.tunnel
    jumps = tuple(part.strip() for part in jump.split(",")) if isinstance(jump, str) else ()
    return Prepared(options, known_hosts, files[0], () if jumps == ("none",) else jumps)


def _known_hosts_files(
    settings: SshSettings, options: asyncssh.SSHClientConnectionOptions, config: Path
) -> list[Path]:
    if settings.known_hosts is not None:
        return [settings.known_hosts.expanduser()]
    named = _names(options, "UserKnownHostsFile", "~/.ssh/known_hosts")
    shared = _names(options, "GlobalKnownHostsFile", "/etc/ssh/ssh_known_hosts")
    files = [Path(name).expanduser() for name in [*named, *shared]]
    if not named or files[0] == Path("/dev/null"):
        raise ValueError(
            f"{config} sets UserKnownHostsFile to none for this host, which would trust any "
            "machine; remove that line, or set ssh.known_hosts"
        )
    return files


def _names(options: asyncssh.SSHClientConnectionOptions, option: str, default: str) -> list[str]:
    value = options.config.get(option, [default])
    return [str(name) for name in value] if isinstance(value, list) else []


def _read_known_hosts(files: list[Path]) -> asyncssh.SSHKnownHosts:
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in files if path.is_file()]
    return asyncssh.import_known_hosts("\n".join(texts))
