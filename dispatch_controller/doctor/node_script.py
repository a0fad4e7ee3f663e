"""What a node is asked in one round trip, and how its answer is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BEGIN = "dispatch-doctor begins"
END = "dispatch-doctor ends"

# PATH as the wrapper has it (wrapper/environment.py): a command over SSH gets no login shell.
# $1 root, $2 file name of this release's wrapper, $3 a cluster's own wrapper or "", then programs.
SCRIPT = f"""
PATH="$PATH:$HOME/.local/bin:$HOME/bin:$HOME/.cargo/bin:/opt/homebrew/bin:/usr/local/bin"
root=$1 wrapper=$1/.dispatch/$2 own=$3
shift 3
echo "{BEGIN}"
echo "now $(date +%s)"
if command -v python3 >/dev/null 2>&1; then
    echo "python $(python3 -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)"
fi
command -v git >/dev/null 2>&1 && echo "program git"
for program; do
    command -v "$program" >/dev/null 2>&1 && echo "program $program"
done
folder=$root
while [ ! -e "$folder" ]; do folder=$(dirname "$folder"); done
[ -d "$folder" ] && [ -w "$folder" ] || echo "readonly $folder"
df -Pk "$folder" 2>/dev/null | tail -n 1 | (read -r _ blocks used free _; echo "disk $used $free")
if [ -f "$wrapper" ]; then
    hash='import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())'
    echo "wrapper $(python3 -c "$hash" "$wrapper" 2>/dev/null)"
fi
[ -n "$own" ] && [ -x "$own" ] && echo "own-wrapper"
echo "{END}"
"""


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """What a node said. None: it could not tell."""

    now: float | None
    """Unix seconds by the node's clock, cut to whole ones."""
    python: tuple[int, ...] | None
    """Version; empty for a python3 that does not run."""
    programs: frozenset[str]
    readonly: str | None
    disk_used: int | None
    """KiB, as df counts them."""
    disk_free: int | None
    wrapper: str | None
    """SHA-256 of this release's file on the node; empty where it cannot be read."""
    own_wrapper: bool


def read_answer(output: str) -> NodeAnswer | None:
    """Read the script's output, whatever a login shell prints around it; None: incomplete."""
    _, begun, rest = output.partition(BEGIN + "\n")
    body, ended, _ = rest.partition(END)
    if not begun or not ended:
        return None
    said: dict[str, list[str]] = {}
    for line in body.splitlines():
        key, _, value = line.partition(" ")
        said.setdefault(key, []).append(value)
    disk = _numbers(_first(said, "disk"))
    now = _numbers(_first(said, "now"))
    python = _first(said, "python")
    return NodeAnswer(
        now=float(now[0]) if now else None,
        python=None if python is None else tuple(_numbers(python.replace(".", " "))),
        programs=frozenset(said.get("program", ())),
        readonly=_first(said, "readonly"),
        disk_used=disk[0] if len(disk) == 2 else None,
        disk_free=disk[1] if len(disk) == 2 else None,
        wrapper=_first(said, "wrapper"),
        own_wrapper="own-wrapper" in said,
    )


def _first(said: dict[str, list[str]], key: str) -> str | None:
    values: Sequence[str] = said.get(key, ())
    return values[0] if values else None


def _numbers(text: str | None) -> list[int]:
    words = (text or "").split()
    return [int(word) for word in words] if all(word.isdigit() for word in words) else []
