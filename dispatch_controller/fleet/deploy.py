"""Brings the wrapper to a node and starts its `serve`."""

from __future__ import annotations

import json
from typing import Any

import trio

from dispatch_controller.fleet.bundle import Bundle
from dispatch_controller.fleet.transport import LineChannel, Machine, NodeUnfit, TransportLost

HELLO_TIMEOUT = 30.0
"""Seconds for a started `serve` to say hello; it may have to end an earlier one first."""

# $1 root, $2 file name of the wrapper's release, $3 owner.
_LAUNCH = """
command -v python3 >/dev/null 2>&1 || { echo '{"event": "no_python"}'; exit 0; }
version=$(python3 -c '
import sys
print("%d.%d.%d" % sys.version_info[:3])
sys.exit(sys.version_info < (3, 9))') || {
    echo "{\\"event\\": \\"old_python\\", \\"version\\": \\"$version\\"}"; exit 0; }
wrapper=$1/.dispatch/$2
[ -f "$wrapper" ] || { echo '{"event": "no_wrapper"}'; exit 0; }
exec python3 "$wrapper" serve --root "$1" --owner "$3"
"""


async def launch(
    machine: Machine, root: str, owner: str, wrapper: Bundle
) -> tuple[LineChannel, dict[str, Any]]:
    """Start `serve`, bringing the wrapper first where it lacks or differs.

    Returns the channel and the `hello`. Raises TransportLost, and NodeUnfit where a person must
    act: no python3, or one older than 3.9.
    """
    for upload in (False, True):
        if upload:
            path = f"{root}/.dispatch/{wrapper.name}"
            await machine.put(path, wrapper.content)
        channel = await machine.open(["sh", "-c", _LAUNCH, "sh", root, wrapper.name, owner])
        try:
            first = await _first_event(machine.node, channel)
            if first["event"] == "hello" and first.get("wrapper") == wrapper.sha256:
                return channel, first
        except BaseException:
            await channel.aclose()
            raise
        await channel.aclose()
        _refuse_python(machine.node, first)
    raise TransportLost(
        machine.node, f"the wrapper was brought to {root} and still does not start ({first})"
    )


async def _first_event(node: str, channel: LineChannel) -> dict[str, Any]:
    """Skip what the login shell prints, up to the first event of ours."""
    said = b""
    with trio.move_on_after(HELLO_TIMEOUT):
        while True:
            try:
                line = await channel.receive()
            except TransportLost as lost:
                tail = said.decode(errors="replace").strip()[-200:]
                raise type(lost)(
                    node, f"serve did not start: {lost.message}" + (f" ({tail})" if tail else "")
                ) from lost
            event = decode(line)
            if event is not None and isinstance(event.get("event"), str):
                return event
            said = line
    raise TransportLost(node, f"serve said no hello within {HELLO_TIMEOUT:g} s")


def _refuse_python(node: str, event: dict[str, Any]) -> None:
    need = "the wrapper needs python3 of version 3.9 or newer on its PATH"
    if event["event"] == "no_python":
        raise NodeUnfit(node, f"has no python3; {need}")
    if event["event"] == "old_python":
        found = event.get("version") or "a python3 that does not run"
        raise NodeUnfit(node, f"has {found}; {need}")


def decode(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object on a line, None for anything else."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
