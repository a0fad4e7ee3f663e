"""What a scheduling pass reads and writes: one snapshot, and fewer than ten statements in all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dispatch_controller.core.placement import (
    Board,
    Conditions,
    Lock,
    Placement,
    Reason,
    place,
    waiting,
)
from dispatch_controller.model import HELD, Node, SpecExtras, Task, TaskStatus
from dispatch_controller.store import file_locks, nodes, tasks
from dispatch_controller.store.writer import Connection

FIRST_PAGE = 32
"""Candidates in the first page, at the least."""


Refresh = Callable[[Sequence[str]], Mapping[str, SpecExtras]]
"""Brings what is known of these spec files up to date, and returns what is known of all."""


@dataclass(frozen=True, slots=True)
class PassResult:
    nodes: tuple[Node, ...]
    held: frozenset[str]
    """Ids claimed or running in the snapshot."""
    placements: tuple[Placement, ...]
    considered: int


def read_board(
    conn: Connection, conditions: Conditions, now: float, *, reputation: bool
) -> tuple[Board, list[Node], list[Task]]:
    """Return the board with what is held, the nodes, and the held tasks."""
    fleet = nodes.all_nodes(conn, reputation=reputation)
    held = tasks.in_status(conn, *HELD)
    locks = [
        Lock(lock.project, lock.file_path, lock.task_id)
        for lock in file_locks.all_locks(conn)
        if lock.project is not None
    ]
    return Board(fleet, held, locks, conditions, now), fleet, held


def run_pass(
    conn: Connection,
    conditions: Conditions,
    refresh: Refresh,
    now: float,
    *,
    reputation: bool,
) -> PassResult:
    """Return what one pass places. No candidate is read while no slot is free."""
    board, fleet, held = read_board(conn, conditions, now, reputation=reputation)
    placements, considered = _fill(conn, board, refresh, now)
    ids = frozenset(task.id for task in held)
    return PassResult(tuple(fleet), ids, tuple(placements), considered)


def _fill(
    conn: Connection, board: Board, refresh: Refresh, now: float
) -> tuple[list[Placement], int]:
    """Return what is placed until no slot is free, and how many tasks were looked at."""
    placements: list[Placement] = []
    considered = 0
    free = board.free_slots
    if not free:
        return placements, considered
    for page in tasks.candidates(conn, now, max(FIRST_PAGE, 2 * free), board.may_place):
        board.know(refresh([task.spec_file for task in page]))
        placements += place(board, page)
        considered += len(page)
        if not board.free_slots:
            break
    return placements, considered


def explain(
    conn: Connection,
    ids: Sequence[str],
    conditions: Conditions,
    cycles: Mapping[str, Sequence[str]],
    refresh: Refresh,
    now: float,
    *,
    reputation: bool,
) -> dict[str, Reason]:
    """Return why each of the pending tasks among `ids` is not running, by the pass's own rules.

    A pass is made first, on paper: what it would place says so, and all others give their reason
    as it would find them then.
    """
    wanted = [
        task for task in tasks.by_ids(conn, ids).values() if task.status is TaskStatus.PENDING
    ]
    parents = tasks.statuses(conn, sorted({p for task in wanted for p in task.depends_on or ()}))
    board, _, _ = read_board(conn, conditions, now, reputation=reputation)
    placements, _ = _fill(conn, board, refresh, now)
    board.know(refresh([task.spec_file for task in wanted]))
    placed = {placement.task.id: placement for placement in placements}
    found: dict[str, Reason] = {}
    for task in wanted:
        verdict: Placement | Reason = (
            placed.get(task.id)
            or waiting(task, parents, cycles.get(task.id), now)
            or board.consider(task)
        )
        if isinstance(verdict, Placement):
            verdict = Reason("next_pass", f"will be placed on {verdict.node} by the next pass")
        found[task.id] = verdict
    return found
