"""The fenced `sh` and `bash` blocks of a spec, which the `shell` executor runs."""

from __future__ import annotations

import re

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*([^\s`{]*)[^`]*$")


def script(spec: str) -> tuple[str, str]:
    """Return (the blocks joined, the shell): `bash` if any block says bash, else `sh`.

    An unclosed block reaches to the end of the spec, as CommonMark has it.
    """
    pieces: list[str] = []
    shell = "sh"
    fence = ""
    wanted = False
    for line in spec.splitlines():
        found = _FENCE.match(line)
        if not fence:
            if found:
                fence, language = found.group(1), found.group(2).lower()
                wanted = language in ("sh", "bash")
                shell = "bash" if language == "bash" else shell
        elif _closes(line, fence):
            fence = ""
        elif wanted:
            pieces.append(line)
    return "".join(piece + "\n" for piece in pieces), shell


def _closes(line: str, fence: str) -> bool:
    mark = line.strip()
    return len(mark) >= len(fence) and set(mark) == {fence[0]} and not line.startswith("    ")
