"""Brings a project's code to a node (sync_mode scp), only when it changed."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import trio

from dispatch_controller.fleet.packing import Packed, fingerprint, pack
from dispatch_controller.fleet.transport import Machine, NodeUnfit, TransportLost
from dispatch_controller.runtime.threads import RunSync

TRIES = 3
_RETRY_SECONDS = 1.0
_BYTES_PER_SECOND = 1_000_000
"""The slowest link that gets its archive through in time."""

_HAVE = '[ -d "$1/$2/$3" ] && echo present || echo absent'

# $1 root, $2 project, $3 folder, $4 bytes. Unpacked beside, then renamed: nobody sees half of it.
_UNPACK = """
set -e
place=$1/$2
mkdir -p "$place"
new=$place/.$3.$$
trap 'rm -rf "$new" "$new.tgz"' EXIT
cat > "$new.tgz"
size=$(wc -c < "$new.tgz")
[ "$size" -eq "$4" ] || { echo "got $size of $4 bytes" >&2; exit 65; }
mkdir "$new"
tar -xzf "$new.tgz" -C "$new"
[ -d "$place/$3" ] || mv "$new" "$place/$3"
"""


class CodeCourier:
    """Knows what was packed and where it was brought; one courier for the whole process."""

    def __init__(self, run_sync: RunSync) -> None:
        self._run_sync = run_sync
        self._packed: dict[Path, tuple[str, str]] = {}
        """By folder: its fingerprint, and the name of the folder on a node."""
        self._brought: set[tuple[str, str, str, str]] = set()
        self._locks: defaultdict[object, trio.Lock] = defaultdict(trio.Lock)

    async def bring(self, machine: Machine, root: str, project: str, folder: Path) -> str:
        """See that the node has `folder` as it is now.

        Returns the name under ROOT/<project>/ (`StartOrder.code`). Raises CodeUnfit, and
        TransportLost when three tries did not get it there. Callers that need the same wait for
        one transfer.
        """
        async with self._locks[machine.node, root, project]:
            sign = await self._run_sync(fingerprint, folder)
            known = self._packed.get(folder)
            packed: Packed | None = None
            if known is None or known[0] != sign:
                packed = await self._pack(folder, sign)
            name = self._packed[folder][1]
            if (machine.node, root, project, name) not in self._brought:
                name = await self._deliver(machine, root, project, folder, sign, packed)
                self._brought.add((machine.node, root, project, name))
            return name

    async def _pack(self, folder: Path, sign: str) -> Packed:
        packed = await self._run_sync(pack, folder)
        self._packed[folder] = (sign, packed.name)
        return packed

    async def _deliver(
        self,
        machine: Machine,
        root: str,
        project: str,
        folder: Path,
        sign: str,
        packed: Packed | None,
    ) -> str:
        for left in reversed(range(TRIES)):
            try:
                name = self._packed[folder][1]
                if await _has(machine, root, project, name):
                    return name
                if packed is None:
                    packed = await self._pack(folder, sign)
                await _unpack(machine, root, project, packed)
            except NodeUnfit:
                raise
            except TransportLost:
                if not left:
                    raise
                await trio.sleep(_RETRY_SECONDS)
            else:
                break
        return self._packed[folder][1]

    def forget(self, node: str) -> None:
        """Look again what the node has, before the next start there."""
        self._brought = {key for key in self._brought if key[0] != node}


async def _has(machine: Machine, root: str, project: str, name: str) -> bool:
    done = await machine.run(["sh", "-c", _HAVE, "sh", root, project, name])
    return done.stdout.strip() == b"present"


async def _unpack(machine: Machine, root: str, project: str, packed: Packed) -> None:
    size = len(packed.content)
    done = await machine.run(
        ["sh", "-c", _UNPACK, "sh", root, project, packed.name, str(size)],
        stdin=packed.content,
        timeout=60.0 + size / _BYTES_PER_SECOND,
    )
    if done.exit_status != 0:
        why = done.stderr.decode(errors="replace").strip()[-500:]
        raise TransportLost(machine.node, f"the code of {project} could not be unpacked: {why}")
