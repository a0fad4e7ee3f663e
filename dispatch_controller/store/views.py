"""Reads for the API and the pages that no loop needs."""

from __future__ import annotations

from dispatch_controller.model import Claim, TaskStatus
from dispatch_controller.store.tasks import strings, task_from
from dispatch_controller.store.writer import Connection


def claims_of(conn: Connection, node: str) -> list[Claim]:
    """Return the claims that the node has not confirmed, oldest first.

    Only this program's own: their event was written with the very time of the claim.
    """
    rows = conn.execute(
        "SELECT t.*, e.id AS sequence, json_extract(e.details, '$.executor') AS executor"
        " FROM tasks t JOIN events e ON e.timestamp = t.started_at AND e.task_id = t.id"
        " AND e.event_type = 'task_claimed' WHERE t.status = 'claimed' AND t.node = ?"
        " AND json_valid(e.details) AND json_extract(e.details, '$.lease') = t.lease_owner"
        " ORDER BY e.id",
        (node,),
    )
    return [
        Claim(
            task=task_from(row),
            node=node,
            executor=row["executor"] or "",
            lease_owner=row["lease_owner"],
            attempt=row["attempt"],
            sequence=row["sequence"],
        )
        for row in rows
    ]


def held_by_node(conn: Connection) -> dict[str, dict[str, int]]:
    """Return per node how many tasks are claimed and running there."""
    rows = conn.execute(
        "SELECT node, status, count(*) AS n FROM tasks WHERE status IN ('claimed', 'running')"
        " AND node IS NOT NULL GROUP BY node, status"
    )
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row["node"], {"claimed": 0, "running": 0})[row["status"]] = row["n"]
    return found


def row_shown(row: dict[str, object]) -> dict[str, object]:
    """Return a row of `tasks` with its JSON columns as lists."""
    return {
        **row,
        "depends_on": list(strings(row["depends_on"]) or ()),
        "modifies": list(strings(row["modifies"]) or ()),
    }


def id_of_spec(conn: Connection, spec_file: str) -> str | None:
    """Return the id of the task that a spec file has become."""
    row = conn.execute("SELECT id FROM tasks WHERE spec_file = ?", (spec_file,)).fetchone()
    return None if row is None else str(row["id"])


def project_counts(conn: Connection, project: str) -> dict[str, int]:
    """Return how many tasks of a project are in each state; every state is named."""
    found = dict(
        conn.execute(
            "SELECT status, count(*) FROM tasks WHERE project = ? GROUP BY status", (project,)
        ).fetchall()
    )
    return {status.value: found.get(status.value, 0) for status in TaskStatus}
