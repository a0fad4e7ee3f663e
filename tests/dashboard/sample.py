"""A database with a history: projects with dependencies, two days of events, failures of all kinds.

Everything follows from the seed and from `now`.
"""

from __future__ import annotations

import json
import random
import sqlite3
from pathlib import Path

from dispatch_controller.core.times import iso
from dispatch_controller.model import Probe
from dispatch_controller.store.connection import get_db
from tests.dashboard.site import Site

GIB = 2**30
NODES = ("mini-1", "mini-2", "studio", "rack-a", "rack-b")
WORDS = (
    "parser", "login", "cache", "export", "billing", "search", "sync", "metrics", "upload",
    "retry", "schema", "invoice", "webhook", "audit", "report", "theme", "session", "quota",
)  # fmt: skip
FAULTS = (
    ("task", "gate verify: pytest ended with 1: 3 failed, 41 passed", 1),
    ("node", "No space left on device: /home/agent/dispatch is 99 % full", 1),
    ("executor", "rate limited: 429 Too Many Requests, resets at 14:00", 1),
    ("spec", "the spec names src/legacy/importer.py, which does not exist", 2),
    ("unknown", "ended with exit code 70 and no message", 70),
)


def fill(
    path: Path, now: float, *, project: str = "shop", tasks: int = 60, width: int = 6,
    hours: float = 46, seed: int = 1,
) -> None:  # fmt: skip
    """Add a project: layers of about `width` tasks, most of them done, the last ones waiting."""
    rng = random.Random(seed)
    ids = [f"{project}-{n:03d}-{rng.choice(WORDS)}-{rng.choice(WORDS)}" for n in range(tasks)]
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("BEGIN IMMEDIATE")
    for n, task_id in enumerate(ids):
        layer = n // width
        above = ids[max(0, (layer - 1) * width) : layer * width]
        wanted = rng.sample(above, min(len(above), rng.choice((0, 1, 1, 2, 2, 3))))
        if layer > 2 and rng.random() < 0.15:
            wanted.append(rng.choice(ids[: (layer - 2) * width]))
        done = n / tasks
        status = (
            "completed" if done < 0.6 else
            rng.choice(("running", "running", "running", "failed", "completed", "deadletter"))
            if done < 0.75 else "pending"
        )  # fmt: skip
        start = now - (1 - done) * hours * 3600
        _add(conn, rng, task_id, project, status, wanted, start if done < 0.6 else None, now)
    conn.execute("COMMIT")
    conn.close()


def _add(
    conn: sqlite3.Connection, rng: random.Random, task_id: str, project: str, status: str,
    depends_on: list[str], start: float | None, now: float,
) -> None:  # fmt: skip
    node, lease = rng.choice(NODES), f"{rng.choice(NODES)}:{rng.getrandbits(32):08x}"
    begun = now - rng.uniform(60, 5000) if start is None else start
    took = rng.uniform(60, 1500)
    ended = min(now - 5, begun + took)
    fault = rng.choice(FAULTS)
    over = status in ("completed", "failed", "deadletter")
    failed = status in ("failed", "deadletter")
    held = status == "running"
    conn.execute(
        "INSERT INTO tasks (id, project, spec_file, spec_hash, status, node, pid, attempt, error,"
        " started_at, completed_at, collected_at, heartbeat_at, duration_seconds, depends_on,"
        " modifies, lease_owner, lease_expires_at, updated_at, files_changed, loc_added,"
        " loc_removed, estimated_minutes) VALUES"
        " (?, ?, ?, 'x', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 25)",
        (
            task_id, project, f"/srv/specs/{project}/{task_id}.md", status,
            node if over or held else None, rng.randrange(1000, 60000) if held else None,
            1 if over or held else 0, fault[1] if failed else None,
            iso(begun) if over or held else None, iso(ended) if over else None,
            iso(ended + 0.4) if over else None, iso(now - 4) if held else None,
            took if over else None, json.dumps(depends_on),
            json.dumps([f"src/{rng.choice(WORDS)}/{rng.choice(WORDS)}.py"]),
            lease if over or held else None, int(now + 290) if held else None,
            int(ended if over else begun if held else now - 7200),
            rng.randrange(1, 9) if status == "completed" else 0, rng.randrange(5, 400),
            rng.randrange(0, 90),
        ),
    )  # fmt: skip

    def event(at: float, kind: str, **details: object) -> None:
        conn.execute(
            "INSERT INTO events (timestamp, task_id, event_type, node, details)"
            " VALUES (?, ?, ?, ?, ?)",
            (iso(at), task_id, kind, node, json.dumps(details)),
        )

    if not (over or held):
        event(now - 7200, "task_registered", project=project)
        return
    event(begun - rng.expovariate(1 / 9), "task_registered", project=project)
    event(begun, "task_claimed", lease=lease, attempt=1, executor="claude")
    event(begun + 0.08, "task_running", lease=lease)
    if over:
        gates = {"exit": "passed", "changed": "passed", "conflict_markers": "passed"}
        if status == "completed":
            event(
                ended,
                "task_completed",
                lease=lease,
                attempt=1,
                gates={**gates, "verify": "passed"},
                git_branch=f"task/{project}-{task_id}-{node}",
            )
        else:
            event(
                ended,
                "task_failed",
                lease=lease,
                attempt=1,
                cause=fault[0],
                error=fault[1],
                exit_code=fault[2],
                gates={**gates, "verify": "failed"},
            )
        if status == "deadletter":
            event(ended + 1, "task_deadletter", attempt=1, cause=fault[0], why="no retry is left")


def furnish(site: Site, tasks: int = 30) -> None:
    """Give a site nodes in every state, two projects, and incidents."""
    path, now = site.door.context.store.path, site.door.context.clock.wall()
    fill(path, now, project="shop", tasks=tasks, width=14, seed=2)
    fill(path, now, project="docs", tasks=40, width=5, seed=3)
    for n, name in enumerate(NODES):
        site.add_node(name, slots=8 + 4 * n, executor="claude" if n < 3 else "codex")
    knowledge = site.door.context.knowledge

    def tell() -> None:
        for n, name in enumerate(NODES[:-1]):
            knowledge.probes[name] = Probe(
                name, now - 12, 0.0031 * (n + 1), 0.2 if n else 74.0, (1.2 + n, 0.9, 0.7), 8,
                32 * GIB, (9 + n) * GIB, 500 * GIB, (120 - n * 20) * GIB, "9f3c27d1e0aa" * 5,
                "3.11.9", "2.39.5", agents={"claude": {"version": "2.1.4"}},
            )  # fmt: skip
        del knowledge.contacts[NODES[-1]]
        knowledge.problems[NODES[-1]] = "connection refused by rack-b.lan, port 22"
        for loop, stats in site.door.context.stats.items():
            stats.interval = getattr(site.door.context.settings.loops, loop).interval
            stats.succeeded(now + 60, 0.02)
            stats.cycle = 8123

    site.do(tell)
    with get_db(path) as conn:
        conn.execute(
            "INSERT INTO node_reputation (node, score, total_tasks, failed_validations,"
            " quarantined, quarantine_reason) VALUES ('rack-a', 55, 40, 7, 1,"
            " 'reputation 55, below 60')"
        )
        lost = {"text": "rack-b is lost: connection refused", "root": "node:rack-b", "count": 3}
        conn.executemany(
            "INSERT INTO guardian_events (timestamp, check_type, issue_key, severity, status,"
            " details, node) VALUES (?, ?, ?, 3, 'detected', ?, ?)",
            [
                (iso(now - 900), "incident", "node:rack-b", json.dumps(lost), None),
                (iso(now - 900), "node_lost", "lost:rack-b", json.dumps(lost), "rack-b"),
            ],
        )


def first(site: Site, status: str) -> str:
    """Return the first task in that state."""
    with get_db(site.door.context.store.path) as conn:
        row = conn.execute("SELECT min(id) FROM tasks WHERE status = ?", (status,)).fetchone()
        return str(row[0])
