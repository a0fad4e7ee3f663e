"""The table `node_reputation`: how often a node itself was at fault, and its quarantine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from dispatch_controller.core.times import iso, parse_iso
from dispatch_controller.store import events
from dispatch_controller.store.writer import Connection

LEAST = 60
"""Below this score a node is quarantined (loops.md, Guardian)."""
RECOVERED = 80
MOST = 100


class Merit(IntEnum):
    """What changes a node's score, and by how much. Only the node's own faults count."""

    SUCCESS = 2
    FAILURE = -5
    TIME_OUT = -8
    """A start that the node did not confirm in time and that had to be voided."""
    ORPHAN = -15
    """A task that was running there and is gone without a word."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    node: str
    since: float
    reason: str


def count(conn: Connection, now: float, node: str, merit: Merit) -> None:
    """Change a node's score; below LEAST it is quarantined."""
    conn.execute("INSERT OR IGNORE INTO node_reputation (node) VALUES (?)", (node,))
    good = merit is Merit.SUCCESS
    conn.execute(
        "UPDATE node_reputation SET total_tasks = coalesce(total_tasks, 0) + 1,"
        " passed_validations = coalesce(passed_validations, 0) + ?,"
        " failed_validations = coalesce(failed_validations, 0) + ?,"
        " score = max(0, min(?, coalesce(score, 100) + ?)), last_updated = ? WHERE node = ?",
        (int(good), int(not good), MOST, int(merit), iso(now), node),
    )
    row = conn.execute("SELECT score FROM node_reputation WHERE node = ?", (node,)).fetchone()
    if row["score"] < LEAST:
        quarantine(conn, now, node, f"reputation {row['score']}, below {LEAST}")


def quarantine(conn: Connection, now: float, node: str, reason: str) -> bool:
    """Keep new tasks away from a node; return whether it was not so before."""
    conn.execute("INSERT OR IGNORE INTO node_reputation (node) VALUES (?)", (node,))
    updated = conn.execute(
        "UPDATE node_reputation SET quarantined = 1, quarantine_reason = ?, quarantine_at = ?"
        " WHERE node = ? AND coalesce(quarantined, 0) = 0",
        (reason, iso(now), node),
    )
    if not updated.rowcount:
        return False
    events.add(conn, now, "node_quarantined", node=node, reason=reason)
    return True


def release(conn: Connection, now: float, node: str, *, score: int | None, why: str) -> bool:
    """Lift a quarantine; return whether there was one. `score` None leaves the score."""
    updated = conn.execute(
        "UPDATE node_reputation SET quarantined = 0, quarantine_reason = NULL,"
        " quarantine_at = NULL, score = coalesce(?, score), last_updated = ?"
        " WHERE node = ? AND quarantined = 1",
        (score, iso(now), node),
    )
    if not updated.rowcount:
        return False
    events.add(conn, now, "node_released", node=node, why=why)
    return True


def quarantined(conn: Connection) -> list[Quarantined]:
    rows = conn.execute("SELECT * FROM node_reputation WHERE quarantined = 1 ORDER BY node")
    return [
        Quarantined(
            row["node"], parse_iso(row["quarantine_at"]) or 0.0, row["quarantine_reason"] or ""
        )
        for row in rows
    ]
