"""argv → serve, a one-shot verb, `version`, or the way older callers have it."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys

from dispatch_controller.fleet.wrapper import legacy
from dispatch_controller.fleet.wrapper.layout import BadName, Layout
from dispatch_controller.fleet.wrapper.oneshot import VERBS, oneshot
from dispatch_controller.fleet.wrapper.serve import serve
from dispatch_controller.fleet.wrapper.verbs import Verbs

USAGE = """usage: wrapper.pyz serve --root ROOT --owner OWNER [--idle SECONDS]
       wrapper.pyz {verbs} --root ROOT --owner OWNER < request.json
       wrapper.pyz PROJECT TASK_ID SPEC_FILE [REPO_URL] [BRANCH]
       wrapper.pyz version"""


@functools.lru_cache(maxsize=1)
def wrapper_hash() -> str:
    """SHA-256 of the zipapp that runs; `unpacked` where the modules were imported from a folder."""
    archive = getattr(__spec__.loader if __spec__ else None, "archive", None) or sys.argv[0]
    try:
        with open(archive, "rb") as file:
            content = file.read()
    except OSError:
        return "unpacked"
    if b"PK\x05\x06" not in content[-70000:]:
        return "unpacked"
    return hashlib.sha256(content).hexdigest()


def main(argv: list[str]) -> int:
    """Run the command line. Returns the exit status."""
    if argv[1:] == ["version"]:
        python = "{}.{}.{}".format(*sys.version_info[:3])
        print(json.dumps({"wrapper": wrapper_hash(), "python": python}))
        return 0
    command = argv[1] if len(argv) > 1 else ""
    options = _options(argv[2:])
    try:
        if options is not None and command in ("serve", *VERBS):
            verbs = Verbs(Layout(options["root"], options["owner"]), wrapper_hash())
            if command == "serve":
                return serve(verbs, float(options.get("idle", 90)))
            return oneshot(verbs, command)
        if 4 <= len(argv) <= 6 and not any(a.startswith("-") for a in argv[1:4]):
            layout = Layout(legacy.root(), os.environ.get("DISPATCH_OWNER", ""))
            return legacy.run(Verbs(layout, wrapper_hash()), argv[1:])
    except (BadName, ValueError) as e:
        print(e, file=sys.stderr)
        return 64
    print(USAGE.format(verbs="|".join(VERBS)), file=sys.stderr)
    return 64


def _options(words: list[str]) -> dict[str, str] | None:
    """--root and --owner (both needed) and --idle; None when they are not that."""
    names = [w[2:] for w in words[::2] if w.startswith("--")]
    if len(words) % 2 or len(names) * 2 != len(words) or not {"root", "owner"} <= set(names):
        return None
    return dict(zip(names, words[1::2]))  # noqa: B905 - strict= is newer than Python 3.9


if __name__ == "__main__":
    sys.exit(main(sys.argv))
