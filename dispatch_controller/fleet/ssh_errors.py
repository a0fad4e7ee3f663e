"""What went wrong with a connection, in words that say what to do."""

from __future__ import annotations

import shlex

import asyncssh

from dispatch_controller.fleet.ssh_options import Prepared
from dispatch_controller.fleet.transport import NodeUnfit, TransportLost


class HostKeyWitness(asyncssh.SSHClient):
    """Accepts no key that known_hosts does not hold, and remembers the one that was offered."""

    def __init__(self) -> None:
        self.offered: asyncssh.SSHKey | None = None
        self.address = ""

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        self.offered, self.address = key, addr
        return False


def explain(
    node: str, error: Exception, prepared: Prepared, witness: HostKeyWitness
) -> TransportLost:
    """Return the exception to raise: NodeUnfit where a person must act, else TransportLost."""
    where = f"{prepared.host}:{prepared.port}"
    known = prepared.known_hosts.match(
        prepared.known_name, witness.address, prepared.port if prepared.port != 22 else None
    )[0]
    if isinstance(error, asyncssh.HostKeyNotVerifiable) or (
        # Of a host that is known only keys of the known kinds are asked for.
        known and isinstance(error, asyncssh.KeyExchangeFailed)
    ):
        return NodeUnfit(node, _host_key_text(error, prepared, witness, changed=bool(known)))
    if isinstance(error, asyncssh.PermissionDenied):
        user = prepared.options.username
        return NodeUnfit(
            node,
            f"{where} refused the login of {user} ({error.reason}); add this machine's public key "
            "to its authorized_keys, and a key with a passphrase to the agent (ssh-add)",
        )
    text = error.reason if isinstance(error, asyncssh.Error) else str(error)
    return TransportLost(node, f"no SSH connection to {where}: {text or type(error).__name__}")


def _host_key_text(
    error: Exception, prepared: Prepared, witness: HostKeyWitness, *, changed: bool
) -> str:
    name = prepared.known_name
    filed = name if prepared.port == 22 else f"[{name}]:{prepared.port}"
    file = shlex.quote(str(prepared.known_hosts_file))
    scan = f"ssh-keyscan -p {prepared.port} {shlex.quote(prepared.host)}"
    if name != prepared.host:
        scan += f" | sed 's/^[^ ]*/{filed}/'"
    offered = f" ({witness.offered.get_fingerprint()})" if witness.offered is not None else ""
    if "revoked" in str(error):
        return f"the host key of {filed}{offered} is marked @revoked in {file}"
    if changed:
        return (
            f"the host key of {filed} has changed{offered}: either the machine was set up anew or "
            "something stands in between. Once you know that it is right: "
            f"ssh-keygen -R {shlex.quote(filed)} -f {file}; {scan} >> {file}"
        )
    return (
        f"the host key of {filed} is unknown{offered}. Compare it with the machine's own, then "
        f"accept it: {scan} >> {file}"
    )
