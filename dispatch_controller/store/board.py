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

FIRST_PAGE = 200
"""Candidates in the first page; each further one is twice as large."""


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
    refresh: Callable[[Sequence[str]], Mapping[str, SpecExtras]],
    now: float,
    *,
    reputation: bool,
) -> PassResult:
    """Return what one pass places. No candidate is read while no slot is free.

    `refresh` brings what is known of the spec files of a page up to date.
    """
    board, fleet, held = read_board(conn, conditions, now, reputation=reputation)
    placements: list[Placement] = []
    considered = 0
    limit, after = max(FIRST_PAGE, 4 * board.free_slots), None
    while board.free_slots > 0:
        page, after = tasks.candidates(conn, now, after, limit, board.may_place)
        board.know(refresh([task.spec_file for task in page]))
        placements += place(board, page)
        considered += len(page)
        limit *= 2
        if after is None:
            break
    ids = frozenset(task.id for task in held)
    return PassResult(tuple(fleet), ids, tuple(placements), considered)


def explain(
    conn: Connection,
    ids: Sequence[str],
    conditions: Conditions,
    cycles: Mapping[str, Sequence[str]],
    refresh: Callable[[Sequence[str]], Mapping[str, SpecExtras]],
    now: float,
    *,
    reputation: bool,
) -> dict[str, Reason]:
    """Return why each of the pending tasks among `ids` is not running, by the pass's own rules."""
    wanted = [
        task for task in tasks.by_ids(conn, ids).values() if task.status is TaskStatus.PENDING
    ]
    parents = tasks.statuses(conn, sorted({p for task in wanted for p in task.depends_on or ()}))
    board, _, _ = read_board(conn, conditions, now, reputation=reputation)
    board.know(refresh([task.spec_file for task in wanted]))
    found: dict[str, Reason] = {}
    for task in wanted:
        reason = waiting(task, parents, cycles.get(task.id), now) or board.consider(task)
        if isinstance(reason, Placement):
            reason = Reason("next_pass", f"will be placed on {reason.node} by the next pass")
        found[task.id] = reason
    return found
