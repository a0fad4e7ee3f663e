"""Five programs write to dispatch.db as the former daemons did, while the controller works."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e import history
from tests.e2e.conftest import Starter
from tests.e2e.controller import eventually
from tests.e2e.homes import write_home
from tests.faults.neighbour import rows, sound
from tests.store.test_neighbours import Neighbour, stop

DAEMON = """
import datetime, json, sqlite3, sys, threading
path, me = sys.argv[1:]
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
n = 0
while not stop.wait(0.02):
    conn = sqlite3.connect(path, timeout=30)  # a connection for each round, as they had
    conn.execute("PRAGMA journal_mode=WAL")
    conn.execute("PRAGMA busy_timeout=30000")
    now = datetime.datetime.now().isoformat()
    with conn:
        conn.execute("UPDATE nodes SET running_count = running_count WHERE name = 'here'")
        conn.execute(
            "INSERT INTO events (timestamp, task_id, event_type, details) VALUES (?, ?, ?, ?)",
            (now, f"mine-{me}", "status_sync", json.dumps({"n": n})),
        )
        conn.execute(
            "UPDATE tasks SET estimated_minutes = estimated_minutes + 1 WHERE id = ?",
            (f"mine-{me}",),
        )
    conn.execute("SELECT count(*) FROM tasks WHERE status = 'running'").fetchall()
    conn.close()
    n += 1
    if n == 1:
        print("held", flush=True)
print(n)
"""


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(15, marks=[pytest.mark.slow, pytest.mark.timeout(200)]),
        pytest.param(600, marks=[pytest.mark.soak, pytest.mark.timeout(1200)]),
    ],
)
def test_five_foreign_writers_cost_no_lock_error_and_no_lost_update(
    controller_on: Starter, tmp_path: Path, seconds: int
) -> None:
    log, specs = tmp_path / "tasks.log", tmp_path / "work"
    jobs = history.plan(2 * seconds, 11)
    for job in jobs:
        place = specs / job.project
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{job.id}.md").write_text(job.markdown(log))
    home = write_home(tmp_path / "home", {"here": 4})
    database = home / "dispatch.db"
    controller = controller_on(home).start()
    for number in range(5):  # tasks of theirs, which nobody here runs
        path = home / "specs" / "theirs" / f"mine-{number}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f"---\ntask_id: mine-{number}\nproject: theirs\nexecutor: nobody\n"
            f"modifies: [{number}]\nestimated_minutes: 30\n---\n# x\n"
        )
    controller.register(home / "specs")
    argv = [sys.executable, "-c", DAEMON, str(database)]
    pipe = subprocess.PIPE
    daemons = [
        Neighbour(
            subprocess.Popen([*argv, str(n)], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        )
        for n in range(5)
    ]
    try:
        for daemon in daemons:
            daemon.started()
        controller.register(specs)
        time.sleep(seconds)
        written = stop(daemons)
    finally:
        for daemon in daemons:
            if daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.communicate()
    eventually(
        lambda: controller.counts() == {"completed": len(jobs), "pending": 5}, 200,
        controller.counts,
    )  # fmt: skip
    found = rows(database)
    assert [found[f"mine-{n}"]["estimated_minutes"] for n in range(5)] == [
        30 + times for times in written
    ]
    assert history.violations(jobs, history.read(log)) == []
    assert sound(database)
    assert "is locked" not in controller.said()
    assert controller.errors() == []
