"""Three real nodes with work on them, to which something will happen."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e import history
from tests.e2e.controller import Controller, alive, eventually
from tests.e2e.history import Job
from tests.e2e.homes import QUICK, write_home
from tests.faults.neighbour import sound
from tests.sshd import SshFleet, SshNode

NODES = ("n1", "n2", "n3")
FAST = QUICK + "guardian = {interval = 0.5}\n"


@dataclass
class Site:
    """One controller, three nodes, two tasks on each that run until they are let go."""

    controller: Controller
    fleet: SshFleet
    folder: Path
    jobs: list[Job]

    @property
    def log(self) -> Path:
        return self.folder / "tasks.log"

    @property
    def database(self) -> Path:
        return self.controller.home / "dispatch.db"

    def let_go(self) -> None:
        """Have all agents come to their end."""
        (self.folder / "go-on").touch()

    def on(self, node: str) -> list[str]:
        """Return the tasks that run on a node."""
        rows = self.controller.tasks(status="running", node=node)
        return sorted(rows)

    def agent(self, task: str) -> int:
        """Return the pid of a task's agent, which leads its process group."""
        row = self.controller.task(task)
        return int(json.loads(self.status(task, row["node"]).read_text())["pid"])

    def status(self, task: str, node: str) -> Path:
        home = self.fleet.nodes[node].home
        return home / "dispatch" / "p" / "tasks" / task / "status.json"

    def incidents(self, root: str) -> list[str]:
        """Return the states of all incidents there were of one cause."""
        with closing(sqlite3.connect(self.database)) as conn:
            rows = conn.execute(
                "SELECT status FROM guardian_events WHERE check_type = 'incident'"
                " AND issue_key = ? ORDER BY id", (root,),
            )  # fmt: skip
            return [row[0] for row in rows]

    def open_incidents(self) -> list[str]:
        with closing(sqlite3.connect(self.database)) as conn:
            rows = conn.execute(
                "SELECT issue_key FROM guardian_events WHERE check_type = 'incident'"
                " AND status = 'detected'"
            )
            return [row[0] for row in rows]

    def finish(self, *, again: frozenset[str] = frozenset()) -> None:
        """All tasks come to their end, nothing is lost or doubled, and all is free again.

        `again` are those whose first attempt the fault took; all others ran exactly once.
        """
        self.let_go()
        self.controller.wait_all(60)
        assert self.controller.counts() == {"completed": len(self.jobs)}
        runs = history.read(self.log)
        for job in self.jobs:
            ended = [run for run in runs[job.id] if run.end is not None]
            assert len(ended) == 1, runs[job.id]
            assert len(runs[job.id]) == 1 + (job.id in again), runs[job.id]
            assert ended == runs[job.id][-1:]
        eventually(lambda: not self.open_incidents(), 30, self.open_incidents)
        eventually(lambda: self._slots() == (0, 0), 10, self._slots)
        assert sound(self.database)
        assert "Traceback" not in self.controller.said()

    def _slots(self) -> tuple[int, int]:
        with closing(sqlite3.connect(self.database)) as conn:
            used = conn.execute("SELECT sum(running_count) FROM nodes").fetchone()[0]
            locks = conn.execute("SELECT count(*) FROM file_locks").fetchone()[0]
        return used, locks


@contextmanager
def site(
    controller: Controller,
    fleet: SshFleet,
    folder: Path,
    settings: str = "",
    pause: str = "sleep 0.1",
) -> Iterator[Site]:
    """Yield a site whose six tasks run."""
    write_home(controller.home, dict.fromkeys(NODES, 2), fleet, quick=FAST, settings=settings)
    controller.start()
    jobs = [Job(f"T{n}", "p", (), (f"{n}.txt",), False, 0.0) for n in range(6)]
    here = Site(controller, fleet, folder, jobs)
    work = folder / "work" / "p"
    work.mkdir(parents=True)
    waits = f"while [ ! -e {folder}/go-on ]; do {pause}; done"
    for job in jobs:
        (work / f"{job.id}.md").write_text(job.markdown(here.log).replace("sleep 0.0", waits))
    eventually(lambda: reached(controller) == len(NODES), 30, controller.said)
    controller.register(work.parent)
    eventually(lambda: controller.counts() == {"running": 6}, 30, controller.counts)
    eventually(lambda: history.started(here.log) == 6, 10, controller.counts)
    try:
        yield here
    finally:
        here.let_go()


def reached(controller: Controller) -> int:
    """Return how many nodes answer."""
    return sum(bool(node["reachable"]) for node in controller.get("nodes"))


def serve(node: SshNode) -> int:
    """Return the pid of the `serve` that holds the node's lock."""
    (lock,) = (node.home / "dispatch" / ".dispatch").glob("*/serve.lock")
    return int(json.loads(lock.read_bytes())["pid"])


def parent(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def gone(pid: int) -> bool:
    return not alive(pid)
