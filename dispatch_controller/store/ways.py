"""By which way a node was reached, kept as an event, so that its tasks are found after a restart.

`nodes` has no column for it (database.md), and a worker that was only heard of leaves no other
trace. The event is written before the way is used.
"""

from __future__ import annotations

from collections.abc import Mapping

from dispatch_controller.store import events
from dispatch_controller.store.writer import Connection

EVENT = "node_way"


def add(conn: Connection, now: float, ways: Mapping[str, bool]) -> None:
    """Record the way of these nodes: True where it is an HTTP worker."""
    for node, by_worker in sorted(ways.items()):
        events.add(conn, now, EVENT, node=node, worker=by_worker)


def of_holding_nodes(conn: Connection) -> dict[str, bool]:
    """Return the last way of each node that holds tasks, as far as one was ever recorded."""
    rows = conn.execute(
        "SELECT node, details FROM events WHERE id IN (SELECT max(id) FROM events"
        " WHERE event_type = :event AND node IN (SELECT node FROM tasks"
        " WHERE status IN ('claimed', 'running')) GROUP BY node)",
        {"event": EVENT},
    )
    return {row["node"]: '"worker": true' in (row["details"] or "") for row in rows}
