"""The guardian's checks: from what is known to what is wrong. Pure; times are Unix seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dispatch_controller.core.incidents import Finding, Severity
from dispatch_controller.core.placement import Reason
from dispatch_controller.core.times import iso
from dispatch_controller.model import Observation, Probe, Task, TaskStatus

RUNNING_LONG = 4 * 3600.0
NOT_PLACED_FOR = 30 * 60.0
MOST_SKEW = 30.0
"""Seconds a node's clock may differ from ours before that is a finding."""
MOST_DISK = 0.98
"""Share of a node's disk that may be used: the wrapper starts nothing above it."""
HEARTBEAT_STALE = 300.0
RECENTLY_DEAD = 24 * 3600.0

BROKEN_GRAPH = ("cycle", "unknown_dependency")


def task_stuck(tasks: Sequence[Task], seen: Mapping[str, Observation], now: float) -> list[Finding]:
    """Running for more than 4 h, waiting for input, or without a heartbeat: told, not ended."""
    found = []
    for task in tasks:
        if task.status is not TaskStatus.RUNNING:
            continue
        last = seen.get(task.lease_owner or "")
        if task.started_at is not None and now - task.started_at > RUNNING_LONG:
            hours = (now - task.started_at) / 3600
            used = "" if last is None else f"; CPU {last.cpu_seconds or 0:.0f} s so far"
            found.append(
                _of_task("check_task_stuck", task, "long", f"has run for {hours:.1f} h{used}")
            )
        if last is not None and last.waiting_input:
            found.append(
                _of_task("check_task_stuck", task, "waiting_input", "waits for input at a prompt")
            )
        beat = task.heartbeat_at
        if beat is not None and now - beat > max(HEARTBEAT_STALE, task.visibility_timeout):
            minutes = (now - beat) / 60
            found.append(
                _of_task(
                    "check_task_stuck", task, "heartbeat", f"no heartbeat for {minutes:.0f} min"
                )
            )
    return found


def _of_task(check: str, task: Task, what: str, text: str) -> Finding:
    return Finding(
        check=check,
        key=f"{what}:{task.id}",
        severity=Severity.WARNING,
        text=f"{task.id} on {task.node} {text}",
        root=f"node:{task.node}",
        node=task.node,
        details={"task": task.id},
    )


def dag_stuck(
    pending: Sequence[Task],
    reasons: Mapping[str, Reason],
    dead: Mapping[str, Sequence[str]],
    ready_since: Mapping[str, float],
    now: float,
) -> list[Finding]:
    """Pending tasks that nothing will ever free, or that nothing has placed for 30 min.

    `dead` gives for a task the chain of ids down to a dependency in deadletter; `ready_since` when
    its dependencies were first seen to be completed.
    """
    found = []
    for task in pending:
        reason = reasons.get(task.id)
        if reason is None:
            continue
        if task.id in dead:
            chain = " → ".join(dead[task.id])
            found.append(_blocked(task, "dead_dependency", f"waits for a dead task: {chain}"))
        elif reason.kind in BROKEN_GRAPH:
            found.append(_blocked(task, reason.kind, reason.text))
        elif now - ready_since.get(task.id, now) > NOT_PLACED_FOR and reason.kind != "backoff":
            minutes = (now - ready_since[task.id]) / 60
            text = f"could run for {minutes:.0f} min and was not placed: {reason.text}"
            found.append(_blocked(task, "not_placed", text, _root(task, reason)))
    return found


def _blocked(task: Task, what: str, text: str, root: str | None = None) -> Finding:
    return Finding(
        check="check_dag_stuck",
        key=f"{what}:{task.id}",
        severity=Severity.WARNING,
        text=f"{task.id} {text}",
        root=root or f"project:{task.project}",
        details={"task": task.id},
    )


def _root(task: Task, reason: Reason) -> str | None:
    executor = reason.details.get("executor")
    return f"executor:{executor}" if isinstance(executor, str) else None


def dead_chain(
    task_id: str, parents: Mapping[str, Sequence[str]], statuses: Mapping[str, TaskStatus]
) -> tuple[str, ...] | None:
    """Return the ids from a task down to a dependency in deadletter, the shortest way, or None."""
    ways: list[tuple[str, ...]] = [(task_id,)]
    seen = {task_id}
    for way in ways:
        for parent in parents.get(way[-1], ()):
            if statuses.get(parent) is TaskStatus.DEADLETTER:
                return (*way, parent)
            if parent not in seen and statuses.get(parent) is not TaskStatus.COMPLETED:
                seen.add(parent)
                ways.append((*way, parent))
    return None


def deadletters(dead: Sequence[tuple[Task, str, str]], now: float) -> list[Finding]:
    """Tasks that died within the last 24 h, under the root cause that (task, cause, why) names."""
    found = []
    for task, cause, why in dead:
        if cause == "operator" or now - (task.updated_at or 0.0) > RECENTLY_DEAD:
            continue
        root = f"node:{task.node}" if cause == "node" else f"project:{task.project}"
        found.append(
            Finding(
                check="deadletter",
                key=f"deadletter:{task.id}",
                severity=Severity.WARNING,
                text=f"{task.id} is dead ({cause}): {why}",
                root=root,
                node=task.node,
                details={"task": task.id, "cause": cause},
            )
        )
    return found


def disk_used(probe: Probe) -> float | None:
    """Return the share of a node's disk that is used; None where it did not tell."""
    if not probe.disk_total or probe.disk_free is None:
        return None
    return 1 - probe.disk_free / probe.disk_total


def node_drift(probes: Mapping[str, Probe], unfit: Mapping[tuple[str, str], str]) -> list[Finding]:
    """What is wrong with nodes that answer: clock, disk, an agent program that is missing."""
    found = []
    for node, probe in sorted(probes.items()):
        if abs(probe.clock_skew) > MOST_SKEW:
            text = f"the clock of {node} is {probe.clock_skew:+.0f} s off"
            found.append(_of_node(node, "clock_skew", Severity.WARNING, text))
        used = disk_used(probe)
        if used is not None and used > MOST_DISK:
            text = f"the disk of {node} is {used:.0%} full: it starts nothing"
            found.append(_of_node(node, "disk", Severity.CRITICAL, text))
    for (node, executor), why in sorted(unfit.items()):
        found.append(_of_node(node, f"unfit:{executor}", Severity.WARNING, f"{node}: {why}"))
    return found


def rate_limits(parked: Mapping[tuple[str, str], float], now: float) -> list[Finding]:
    """Executors that are parked by a rate limit: (executor, api_mode) and until when."""
    return [
        Finding(
            check="rate_limit",
            key=f"parked:{executor}:{mode}",
            severity=Severity.WARNING,
            text=f"executor {executor} ({mode}) is rate limited until {iso(until)}",
            root=f"executor:{executor}",
            details={"until": iso(until)},
        )
        for (executor, mode), until in sorted(parked.items())
        if until > now
    ]


def _of_node(node: str, what: str, severity: Severity, text: str) -> Finding:
    return Finding(
        check="check_drift",
        key=f"{what}:{node}",
        severity=severity,
        text=text,
        root=f"node:{node}",
        node=node,
    )
