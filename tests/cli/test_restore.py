"""The way back: one command, nothing lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from dispatch_controller.home import Home, lock_home
from dispatch_controller.store.backup import snapshot
from dispatch_controller.store.schema import prepare
from tests.cli.conftest import Run


@pytest.fixture
def kept(home: Home) -> Home:
    """A home with two snapshots: one task in the older, two in the newer."""
    prepare(home.database)
    for number, now in enumerate((1_700_000_000, 1_700_100_000), 1):
        with closing(sqlite3.connect(home.database)) as conn, conn:
            conn.execute(
                "INSERT INTO tasks (id, project, spec_file) VALUES (?, 'shop', 'a.md')",
                (f"S{number}",),
            )
        snapshot(home.database, home.snapshots, now)
    return home


def tasks(home: Home) -> list[str]:
    with closing(sqlite3.connect(home.database)) as conn:
        return [row[0] for row in conn.execute("SELECT id FROM tasks ORDER BY id")]


def test_the_newest_snapshot_comes_back_and_the_old_database_is_kept(run: Run, kept: Home) -> None:
    with closing(sqlite3.connect(kept.database)) as conn, conn:
        conn.execute("DELETE FROM tasks")
    result = run("restore")
    assert result.code == 0, result.err
    assert tasks(kept) == ["S1", "S2"]
    assert "dispatch-20231116T020000Z.db" in result.out
    assert (kept.root / "dispatch.db.before-restore").exists()


def test_a_snapshot_is_named_by_file_or_by_path(run: Run, kept: Home) -> None:
    assert run("restore", "dispatch-20231114T221320Z.db").code == 0
    assert tasks(kept) == ["S1"]
    assert run("restore", str(kept.snapshots / "dispatch-20231116T020000Z.db")).code == 0
    assert tasks(kept) == ["S1", "S2"]


def test_an_unknown_snapshot_is_refused_with_those_there_are(run: Run, kept: Home) -> None:
    result = run("restore", "gone.db")
    assert result.code == 1
    assert "dispatch-20231114T221320Z.db" in result.err


def test_a_damaged_snapshot_changes_nothing(run: Run, kept: Home) -> None:
    bad = kept.snapshots / "dispatch-20240101T000000Z.db"
    bad.write_text("no tables " * 1000)
    result = run("restore")
    assert result.code == 78
    assert "nothing was changed" in result.err
    assert tasks(kept) == ["S1", "S2"]


def test_a_running_controller_keeps_its_database(run: Run, kept: Home) -> None:
    with lock_home(kept):
        assert run("restore").code == 75


def test_without_a_snapshot_it_says_so(run: Run, home: Home) -> None:
    assert run("restore").code == 78
