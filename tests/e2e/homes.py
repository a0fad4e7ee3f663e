"""Homes for the real program: settings, nodes, projects and specs, as a user writes them."""

# ruff: noqa: ANN401 - values of JSON and TOML

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.sshd import SshFleet

QUICK = """\
grace = 10

[retry]
base = 1
limit = 2

[loops]
scheduling = {interval = 1}
health_check = {interval = 2}
probe_workers = {interval = 2}
db_sync = {interval = 5}
reaper = {interval = 2}
"""
"""Intervals for tests that wait for what a loop does."""


def write_home(
    home: Path,
    nodes: Mapping[str, int],
    fleet: SshFleet | None = None,
    *,
    projects: Mapping[str, Any] | None = None,
    settings: str = "",
    quick: str = QUICK,
    executor: str = "shell",
    node: Mapping[str, Any] | None = None,
) -> Path:
    """Make a home with `nodes` (name to slots), reached by SSH where `fleet` has them.

    A node that `fleet` lacks is this machine, with a folder of its own. `settings` is put before
    the tables of `quick`; `node` is what every node has beside the rest.
    """
    home.mkdir(parents=True, exist_ok=True)
    ssh = ""
    if fleet is not None:
        ssh = (
            f'[ssh]\nconfig = "{fleet.config}"\nknown_hosts = "{fleet.known_hosts}"\n'
            "connect_timeout = 5\ncommand_timeout = 10\n"
        )
    (home / "dispatch.toml").write_text(f"{settings}\n{quick}\n{ssh}")
    rows = []
    for name, slots in nodes.items():
        row: dict[str, Any] = {"name": name, "slots": slots, "executor": executor, **(node or {})}
        if fleet is not None and name in fleet.nodes:
            row["ssh_host"] = name
        else:
            row["work_dir"] = str(home.parent / f"node-{name}")
        rows.append(row)
    (home / "nodes.json").write_text(json.dumps({"nodes": rows}, indent=1))
    if projects is not None:
        (home / "projects.json").write_text(json.dumps(projects, indent=1))
    (home / "specs").mkdir(exist_ok=True)
    return home


def spec(
    task_id: str,
    script: str,
    *,
    project: str = "p",
    depends_on: Sequence[str] = (),
    modifies: Sequence[str] = (),
    executor: str | None = "shell",
    **front: Any,
) -> str:
    """Return a spec of one `sh` block; `front` is more front matter (values as JSON is YAML)."""
    fields = {
        "task_id": task_id,
        "project": project,
        "depends_on": list(depends_on),
        "modifies": list(modifies) or [f"{task_id}.txt"],
        **({"executor": executor} if executor else {}),
        **front,
    }
    front_matter = "".join(f"{key}: {json.dumps(value)}\n" for key, value in fields.items())
    return f"---\n{front_matter}---\n# {task_id}\n\n```sh\n{script}\n```\n"


def write_spec(folder: Path, task_id: str, script: str, **more: Any) -> Path:
    """Write a spec into `folder` under the name of its task; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{task_id}.md"
    path.write_text(spec(task_id, script, **more))
    return path


def makes(name: str = "result.txt", text: str = "done") -> str:
    """Return a script that leaves a file, so that the gate `changed` is content."""
    return f'echo {text} > "$OUTPUT_DIR/{name}"'
