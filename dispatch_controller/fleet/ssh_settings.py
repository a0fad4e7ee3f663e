"""What a person may set for SSH, and the form of `nodes.ssh_host`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_TARGET = re.compile(
    rf"(?:(?P<user>{_NAME})@)?"
    rf"(?:(?P<host>{_NAME})|\[(?P<v6>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9]+)?)\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class SshSettings:
    """Time-outs in seconds. Null means the usual place under ~/.ssh."""

    config: Path | None = None
    known_hosts: Path | None = None
    identity_files: tuple[Path, ...] = ()
    connect_timeout: float = 10.0
    command_timeout: float = 30.0
    transfer_timeout: float = 60.0
    max_channels: int = 8
    """Commands at once over a node's connection; with `serve`'s own channel it stays below the 10
    sessions that sshd allows by default."""


@dataclass(frozen=True, slots=True)
class SshTarget:
    """`nodes.ssh_host`: an alias of the SSH config, or a host with user and port."""

    text: str
    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> SshTarget:
        """Read `alias`, `[user@]host[:port]` or `[user@][v6][:port]`.

        Raises ValueError for anything else: this text comes from files and the database, and
        nothing that a program could take for an option or a command gets through.
        """
        match = _TARGET.fullmatch(text)
        port = int(match["port"]) if match and match["port"] else None
        if match is None or (port is not None and not 0 < port < 65536):
            raise ValueError(
                f"ssh_host {text!r} is not an alias, host, user@host, user@host:port or [v6]:port"
            )
        return cls(text, match["host"] or match["v6"], match["user"], port)
