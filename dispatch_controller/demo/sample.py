"""The demo's home: three nodes on this machine and a project whose every rule can be seen."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

NODES = {"ant": 2, "bee": 2, "cat": 1}
"""Node → slots."""

HANGS, FAILS_ONCE = "S09-hang", "S08-flaky"
SHARED_FILE = ("S06-header", "S07-footer")
"""Two tasks that change the same file: they must not overlap."""

SETTINGS = """\
stuck_after = 6

[retry]
base = 2
limit = 10

[loops]
scheduling = {interval = 1}
reaper = {interval = 1}
probe_workers = {interval = 5}
db_sync = {interval = 5}
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One spec of the sample project."""

    task_id: str
    title: str
    script: str
    depends_on: tuple[str, ...] = ()
    modifies: tuple[str, ...] = ()
    front: str = ""

    def markdown(self, home: Path) -> str:
        script = self.script.replace("{home}", shlex.quote(str(home)))
        return (
            f"---\ntask_id: {self.task_id}\nproject: demo\nexecutor: shell\n"
            f"depends_on: {json.dumps(self.depends_on)}\n"
            f"modifies: {json.dumps(self.modifies or [f'{self.task_id}.txt'])}\n{self.front}---\n"
            f"# {self.title}\n\n```sh\n{script}\n```\n"
        )


def _writes(text: str, seconds: float) -> str:
    return f'sleep {seconds}\necho "{text}" > "$OUTPUT_DIR/result.txt"'


_FLAKY = """\
marker={home}/flaky-was-here
if [ ! -e "$marker" ]; then
    touch "$marker"
    echo "the first attempt fails on purpose" >&2
    exit 1
fi
""" + _writes("second time lucky", 1)

SAMPLES = (
    Sample("S01-plan", "Plan the work", _writes("a plan", 1)),
    Sample("S02-fetch", "Fetch the data", _writes("data", 2), ("S01-plan",)),
    Sample("S03-schema", "Write the schema", _writes("schema", 1.5), ("S01-plan",)),
    Sample("S04-import", "Import the data", _writes("rows", 2), ("S02-fetch", "S03")),
    Sample("S05-report", "Write the report", _writes("report", 1), ("S04-import",)),
    Sample("S06-header", "Change the page's header", _writes("header", 2), (), ("web/page.html",)),
    Sample("S07-footer", "Change the page's footer", _writes("footer", 2), (), ("web/page.html",)),
    Sample(FAILS_ONCE, "Fail once, then succeed", _FLAKY),
    Sample(HANGS, "Hang, until the reaper ends it", "sleep 3600", front="max_retries: 1\n"),
    Sample(
        "S10-checked", "Pass a gate", _writes("42", 1),
        front='verify: grep -q 42 "$OUTPUT_DIR/result.txt"\n',
    ),
    Sample("S11-urgent", "Go first", _writes("urgent", 1), front="priority: 0\n"),
    Sample("S12-publish", "Publish it all", _writes("published", 1), ("S05", "S06", "S07", "S08")),
)  # fmt: skip


def write_home(home: Path) -> None:
    """Write settings, nodes and specs into an empty folder."""
    (home / "dispatch.toml").write_text(SETTINGS)
    nodes = [
        {"name": name, "slots": slots, "executor": "shell", "work_dir": str(home / "nodes" / name)}
        for name, slots in NODES.items()
    ]
    (home / "nodes.json").write_text(json.dumps({"nodes": nodes}, indent=2))
    specs = home / "specs" / "demo"
    specs.mkdir(parents=True)
    for sample in SAMPLES:
        (specs / f"{sample.task_id}.md").write_text(sample.markdown(home))
