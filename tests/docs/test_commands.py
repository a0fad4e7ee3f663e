"""Every command that README and docs show is run, page by page, as its reader would."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.service.standin import systemctl

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SHELLS = ("sh", "bash", "shell", "console", "zsh")
PROGRAM = Path(sys.executable).with_name("dispatch-controller")

SPEC = """---
task_id: {id}
project: shop
modifies: [{id}.py]
executor: shell
max_retries: 0
---
# {id}

```sh
{command}
```
"""

# What a page's reader has in another terminal, and the time that they let go by.
BESIDE = """#!/bin/sh
# `run` goes on in the background; what was registered is given time to end.
case "$1" in
run)
    shift
    "{program}" run --port 0 "$@" >> "$HOME/run.log" 2>&1 &
    echo $! >> "$HOME/run.pids"
    for _ in $(seq 300); do
        grep -q "listening on" "$HOME/run.log" && exit 0
        sleep 0.1
    done
    cat "$HOME/run.log" >&2
    exit 1
    ;;
register)
    "{program}" "$@" || exit $?
    for _ in $(seq 300); do
        "{program}" tasks --json | grep -Eq '"status": "(pending|claimed|running)"' || exit 0
        sleep 0.1
    done
    exit 1
    ;;
esac
exec "{program}" "$@"
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of shell commands."""

    page: Path
    line: int
    info: str
    text: str

    @property
    def not_run(self) -> str | None:
        """Why it cannot be run by a test; said in the page itself."""
        found = re.search(r'not-run="([^"]+)"', self.info)
        return found[1] if found else None

    @property
    def needs(self) -> list[str]:
        found = re.search(r'needs="([^"]+)"', self.info)
        return found[1].split() if found else []


def blocks(page: Path) -> list[Block]:
    """Return the shell blocks of a page, also those that are indented in a list."""
    found = []
    lines = page.read_text("utf-8").splitlines()
    number = 0
    while number < len(lines):
        opening = re.fullmatch(r"( *)(```+)(\S*)(.*)", lines[number])
        number += 1
        if opening is None:
            continue
        indent, fence, language, info = opening.groups()
        begin = number
        while number < len(lines) and lines[number].strip() != fence:
            number += 1
        body = [line.removeprefix(indent) for line in lines[begin:number]]
        number += 1
        if language in SHELLS:
            found.append(Block(page, begin, info, "\n".join(body) + "\n"))
    return found


def shown(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment of somebody who follows a page: a home of theirs, specs, the program."""
    user = tmp_path / "user"
    specs = user / "specs" / "shop"
    specs.mkdir(parents=True)
    (specs / "S01-login.md").write_text(SPEC.format(id="S01-login", command="touch S01-login.py"))
    (specs / "S02-broken.md").write_text(SPEC.format(id="S02-broken", command="exit 3"))
    for home in (user / "dispatch-home", user / "Downloads" / "dispatch"):
        home.mkdir(parents=True, mode=0o700)
        (home / "nodes.json").write_text('[{"name": "here", "executor": "shell", "slots": 2}]')
        (home / "dispatch.toml").write_text("port = 0\n")
    former = user / "Downloads" / "dispatch" / "dispatch.db"
    shutil.copy(_database(tmp_path), former)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in {
        "dispatch-controller": BESIDE.format(program=PROGRAM),
        "df": "#!/bin/sh\necho /dev/disk 1000 500 500 50% /\n",
        # The targets must be there; what they do, CI does. What installs is test_packaging.py's.
        "make": f'#!/bin/sh\nexec {shutil.which("make")} --silent -n -C {ROOT} "$@"\n',
        "pipx": "#!/bin/sh\nexit 0\n",
        "uv": "#!/bin/sh\nexit 0\n",
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    systemctl(tmp_path, monkeypatch)
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    path = f"{programs}:{os.environ['PATH']}"
    try:
        yield {**kept, "HOME": str(user), "PATH": path, "DISPATCH_HOME": f"{user}/dispatch-home"}
    finally:
        _end_controllers(user / "run.pids")


def _database(tmp_path: Path) -> Path:
    from dispatch_controller.store.schema import prepare

    path = tmp_path / "former.db"
    prepare(path)
    return path


def _end_controllers(pids: Path) -> None:
    for pid in map(int, pids.read_text().split() if pids.exists() else []):
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
        deadline = time.monotonic() + 20
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)


STOP = """
for pid in $(cat "$HOME/run.pids" 2>/dev/null); do
    kill "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
done
"""
NEEDS = {
    "controller": "dispatch-controller run\ndispatch-controller register ~/specs\n",
    "stopped": STOP,
}
"""What a page says in words, or another page has done: `needs="..."` behind the fence."""


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=shown)
def test_the_commands_of_a_page_work_in_their_order(page: Path, reader: dict[str, str]) -> None:
    script = ["set -eu"]
    for block in blocks(page):
        if block.not_run:
            continue
        script.append(f"echo '=== {shown(page)}:{block.line}'")
        script += [NEEDS[need] for need in block.needs] + [block.text]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=reader,
        cwd=reader["HOME"],
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Traceback" not in done.stdout


def test_a_command_that_no_test_runs_says_why() -> None:
    for page in PAGES:
        for block in blocks(page):
            if "not-run" in block.info:
                assert block.not_run, f"{shown(page)}:{block.line}"


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for target, anchor in re.findall(r"\]\(([^)#\s:]*)(#[^)\s]+)?\)", text):
        other = page if not target else page.parent / target
        assert other.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", other.read_text("utf-8"), re.MULTILINE)
            names = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor[1:] in names, f"{target}{anchor}"
