"""`doctor --migrate`: a home as the former programs left it, looked at and not changed."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dispatch_controller.doctor.finding import Severity
from dispatch_controller.doctor.migration import remote_workers
from dispatch_controller.home import Home
from dispatch_controller.node_files import NodeEntry
from dispatch_controller.settings import Settings
from dispatch_controller.store.connection import get_db
from tests.doctor.conftest import Place

TASK = (
    "INSERT INTO tasks (id, project, spec_file, status, node, pid, attempt, started_at,"
    " lease_owner, lease_expires_at) VALUES (?, 'shop', ?, ?, ?, ?, 1, ?, ?, ?)"
)
MONTH_AGO = 1_700_000_000


@pytest.fixture
def old(place: Place) -> Place:
    """A home with rows as the five programs leave them."""
    gone = str(place.home.root / "specs/shop/gone.md")
    here = str(place.home.root / "specs/shop/S01.md")
    rows = [
        ("S01", here, "running", "here", None, "2025-01-01T10:00:00", "here:0a0a0a0a", MONTH_AGO),
        ("R2", gone, "running", "mini", 4, "2025-01-01T10:00:00+00:00", "mini:0b", MONTH_AGO),
        ("R3", gone, "claimed", "lost", None, None, "lost:0c", MONTH_AGO),
        ("P1", gone, "pending", None, None, None, "here:0d", MONTH_AGO),
        ("F1", gone, "failed", None, None, None, None, None),
    ]
    with closing(sqlite3.connect(place.home.database)) as conn, conn:
        conn.executemany(TASK, rows)
        conn.execute("INSERT INTO nodes (name) VALUES ('mini')")
        conn.executemany(
            "INSERT INTO file_locks VALUES ('a.py', ?, 'now')", [("S01",), ("F1",), ("never",)]
        )
        conn.executemany("INSERT INTO events (timestamp) VALUES (?)", [("t",)] * 30)
    with closing(sqlite3.connect(place.home.database)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for tail in ("-wal", "-shm"):
        place.home.database.with_name(f"dispatch.db{tail}").unlink(missing_ok=True)
    return place


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "controller.lock"
    }


def told(place: Place) -> dict[str, Severity]:
    return {finding.text: finding.severity for finding in place.look(migrate=True).findings}


def test_it_says_what_becomes_of_everything(old: Place) -> None:
    texts = " | ".join(told(old))
    assert "1 pending, 1 claimed, 2 running, 1 failed" in texts
    assert "30 events" in texts
    assert "1 claimed and 2 running tasks (1 on here, 1 on lost, 1 on mini)" in texts
    assert "leases of 1 claimed and 2 running tasks are over" in texts
    assert "1 pending tasks have a lease that is over" in texts
    assert "1 running tasks have no pid" in texts
    assert "times of 1 tasks have no offset" in texts
    assert "file locks of F1, never, which do not run" in texts
    assert "mini are in the database and not in nodes.json" in texts
    assert "tasks run on lost, which neither nodes.json nor the database names" in texts
    assert "1 specs become new tasks, 0 tasks are updated, 1 stay as they are" in texts
    assert "the spec files of F1, P1, R2, R3 are gone" in texts
    assert "the former controller listened on 0.0.0.0" in texts


def test_nothing_is_changed_and_no_file_is_left_behind(old: Place) -> None:
    before = contents(old.home.root)
    old.look(migrate=True)
    assert contents(old.home.root) == before


def test_a_database_that_others_have_open_is_read_too(old: Place) -> None:
    with get_db(old.home.database) as conn:
        conn.execute("INSERT INTO events (timestamp) VALUES ('t')")
        before = contents(old.home.root)
        assert "31 events" in " | ".join(told(old))
        after = contents(old.home.root)
    # The WAL's index is memory that its users share; what they wrote is as it was.
    before.pop("dispatch.db-shm")
    after.pop("dispatch.db-shm")
    assert after == before


def test_tasks_on_nodes_that_do_not_answer_stay(old: Place) -> None:
    old.nodes(
        {"name": "here", "executor": "shell"},
        {"name": "mini", "executor": "shell", "ssh_host": "127.0.0.1:1"},
        {"name": "lost", "executor": "shell", "slots": 0},
    )
    found = told(old)
    (text,) = (text for text in found if "until their nodes answer" in text)
    assert text.startswith("R2 ")
    assert found[text] is Severity.WARNING


def test_a_home_without_a_database_gets_one(place: Place) -> None:
    place.home.database.unlink()
    assert any("the first start makes it" in text for text in told(place))


def test_a_damaged_database_is_not_planned_on(old: Place) -> None:
    old.home.database.write_text("no tables " * 1000)
    texts = told(old)
    assert any("SQLite cannot read it" in text for text in texts)
    assert not any("become new tasks" in text for text in texts)


def lines(settings: Settings, *urls: str) -> list[tuple[Severity, str, str]]:
    nodes = [NodeEntry(name=f"w{n}", worker_url=url) for n, url in enumerate(urls)]
    found = remote_workers(Home(settings.home), settings, nodes)
    return [(finding.severity, finding.text, finding.fix) for finding in found]


def test_remote_workers_get_the_lines_they_need(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    ((severity, _, fix),) = lines(settings, "http://10.0.0.7:8081", "http://10.0.0.9:8081/")
    assert severity is Severity.WARNING
    assert 'host = "0.0.0.0"' in fix
    assert "api_token_file" in fix
    assert 'legacy_worker_networks = ["10.0.0.7/32", "10.0.0.9/32"]' in fix


def test_without_remote_workers_the_lines_are_only_a_note(tmp_path: Path) -> None:
    ((severity, _, _),) = lines(Settings(home=tmp_path))
    assert severity is Severity.NOTE


def test_workers_whose_network_is_let_in_need_nothing(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {
            "home": tmp_path,
            "host": "0.0.0.0",
            "api_token": "s3cret",
            "legacy_worker_networks": ["10.0.0.0/24"],
        }
    )
    assert lines(settings, "http://10.0.0.7:8081") == []
    ((_, text, fix),) = lines(settings, "http://10.0.1.7:8081")
    assert "w0 (10.0.1.7)" in text
    assert '"10.0.1.7/32"' in fix


def test_the_lines_printed_are_settings_that_start(tmp_path: Path) -> None:
    ((_, _, fix),) = lines(Settings(home=tmp_path), "http://10.0.0.7:8081")
    home = Home(tmp_path / "home")
    home.prepare()
    token = tmp_path / "token"
    token.write_text("s3cret")
    wanted = "\n".join(line.strip() for line in fix.splitlines() if " = " in line)
    home.settings.write_text(wanted.replace("~/.config/dispatch/token", str(token)))
    from dispatch_controller.settings import load_settings

    settings = load_settings(home.root, environ={})
    assert [str(network) for network in settings.legacy_worker_networks] == ["10.0.0.7/32"]
