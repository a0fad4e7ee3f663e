"""The table `guardian_events`: each finding is a row while it stands, and closes as `fixed`."""

from __future__ import annotations

import json
from collections.abc import Iterable

from dispatch_controller.core.incidents import Finding, Incident, Severity
from dispatch_controller.core.times import iso, parse_iso
from dispatch_controller.store.writer import Connection

INCIDENT = "incident"
"""`check_type` of the rows that are incidents."""


def standing(conn: Connection) -> list[Finding]:
    """Return the findings that had not closed when somebody last wrote them."""
    rows = conn.execute(
        "SELECT * FROM guardian_events WHERE status = 'detected' AND check_type != ?"
        " AND issue_key IS NOT NULL ORDER BY id",
        (INCIDENT,),
    )
    found = []
    for row in rows:
        details = _details(row["details"])
        root = details.get("root")
        if isinstance(root, str):  # the old guardian's rows have none; they are not ours to close
            found.append(
                Finding(
                    check=row["check_type"],
                    key=row["issue_key"],
                    severity=Severity(min(3, max(1, row["severity"] or 1))),
                    text=str(details.get("text", "")),
                    root=root,
                    node=row["node"],
                )
            )
    return found


def open_incidents(conn: Connection) -> list[Incident]:
    rows = conn.execute(
        "SELECT * FROM guardian_events WHERE status = 'detected' AND check_type = ? ORDER BY id",
        (INCIDENT,),
    )
    found = []
    for row in rows:
        details = _details(row["details"])
        at = parse_iso(row["timestamp"]) or 0.0
        told = details.get("told_at")
        count = details.get("count")
        found.append(
            Incident(
                root=row["issue_key"] or "",
                opened_at=at,
                severity=Severity(min(3, max(1, row["severity"] or 1))),
                text=str(details.get("text", "")),
                count=count if isinstance(count, int) else 1,
                told_at=told if isinstance(told, int | float) else at,
            )
        )
    return found


def write(conn: Connection, now: float, new: Iterable[Finding], fixed: Iterable[Finding]) -> None:
    for finding in new:
        _open(
            conn, now, finding.check, finding.key, finding.severity, finding.node,
            {"text": finding.text, "root": finding.root, **finding.details},
        )  # fmt: skip
    for finding in fixed:
        _close(conn, finding.check, finding.key)


def write_incidents(
    conn: Connection, now: float, opened: Iterable[Incident], changed: Iterable[Incident],
    closed: Iterable[Incident],
) -> None:  # fmt: skip
    for incident in opened:
        _open(conn, now, INCIDENT, incident.root, incident.severity, None, _told(incident))
    for incident in changed:
        conn.execute(
            "UPDATE guardian_events SET severity = ?, details = ?"
            " WHERE check_type = ? AND issue_key = ? AND status = 'detected'",
            (int(incident.severity), json.dumps(_told(incident)), INCIDENT, incident.root),
        )
    for incident in closed:
        _close(conn, INCIDENT, incident.root)


def _told(incident: Incident) -> dict[str, object]:
    return {"text": incident.text, "count": incident.count, "told_at": incident.told_at}


def _open(
    conn: Connection, now: float, check: str, key: str, severity: int, node: str | None,
    details: dict[str, object],
) -> None:  # fmt: skip
    conn.execute(
        "INSERT INTO guardian_events (timestamp, check_type, issue_key, severity, status, details,"
        " node) VALUES (?, ?, ?, ?, 'detected', ?, ?)",
        (iso(now), check, key, int(severity), json.dumps(details, ensure_ascii=False), node),
    )


def _close(conn: Connection, check: str, key: str) -> None:
    conn.execute(
        "UPDATE guardian_events SET status = 'fixed'"
        " WHERE check_type = ? AND issue_key = ? AND status = 'detected'",
        (check, key),
    )


def page(conn: Connection, limit: int) -> list[dict[str, object]]:
    """Return the newest findings and incidents, newest first, details as objects."""
    rows = conn.execute("SELECT * FROM guardian_events ORDER BY id DESC LIMIT ?", (limit,))
    return [{**dict(row), "details": _details(row["details"])} for row in rows]


def _details(text: object) -> dict[str, object]:
    try:
        value = json.loads(str(text)) if text else {}
    except ValueError:
        value = {"text": text}
    return value if isinstance(value, dict) else {"value": value}
