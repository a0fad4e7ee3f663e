"""Files on a machine, moved through a program's standard input and output."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from dispatch_controller.fleet.transport import Completed, TransportLost

# A connection that dies in the middle looks like the end of the file to `cat`; so the size is
# checked before the rename. $1 path, $2 bytes, $3 a name of its own.
_PUT = """
set -e
umask 077
mkdir -p "$(dirname "$1")"
new="$1.$3.new"
trap 'rm -f "$new"' EXIT
cat > "$new"
size=$(wc -c < "$new")
[ "$size" -eq "$2" ] || { echo "got $size of $2 bytes" >&2; exit 65; }
mv -f "$new" "$1"
trap - EXIT
"""
_GET = 'head -c "$2" < "$1"'


class ShellFiles:
    """`put` and `get` of a Machine, given its `run`."""

    node: str
    transfer_timeout: float = 60.0

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float | None = None
    ) -> Completed:
        raise NotImplementedError

    async def put(self, path: str, content: bytes) -> None:
        """Write a file beside its place, then rename it there; parent folders are made.

        Raises TransportLost, also when the machine refused (disk full, no permission).
        """
        argv = ["sh", "-c", _PUT, "sh", path, str(len(content)), secrets.token_hex(4)]
        done = await self.run(argv, stdin=content, timeout=self.transfer_timeout)
        self._check(done, f"could not write {path}")

    async def get(self, path: str, *, limit: int) -> bytes:
        """Return at most `limit` bytes of a file. Raises TransportLost, also for no file."""
        argv = ["sh", "-c", _GET, "sh", path, str(limit)]
        done = await self.run(argv, timeout=self.transfer_timeout)
        self._check(done, f"could not read {path}")
        return done.stdout

    def _check(self, done: Completed, what: str) -> None:
        if done.exit_status != 0:
            why = done.stderr.decode(errors="replace").strip()[-500:]
            raise TransportLost(self.node, f"{what}: {why or f'exit status {done.exit_status}'}")
