"""The drawing of a project's tasks: layers from left to right, as few crossings as is cheap.

Pure. Every task stands to the right of all its dependencies, and near them. An edge that other
edges imply is left out; one over several layers goes through lanes between the boxes, which all
edges of its source share. Tasks without any edge stand apart in a grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

WIDTH, HEIGHT = 184, 28
"""Of a task's box, in the drawing's units."""
LANE = 4
"""Height of the place at which a long edge passes a layer."""
COLUMN = WIDTH + 64
GAP = 10
MARGIN = 12
SWEEPS = 8
ROUNDS = 500
"""Shifts of groups at the most."""
GRID = 5
"""Columns of tasks without edges, at the least."""

Structure = tuple[tuple[str, tuple[str, ...]], ...]
"""(task, its dependencies), by id."""


@dataclass(frozen=True, slots=True)
class Box:
    id: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Edge:
    source: str
    target: str
    path: str
    """As of SVG's `d`."""
    cyclic: bool
    """Whether it closes a cycle: then it runs against the order of the layers."""


@dataclass(frozen=True, slots=True)
class Drawing:
    width: float
    height: float
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    implied: int
    """Dependencies that are not drawn, since others imply them."""
    layers: int


@lru_cache(maxsize=32)
def draw(structure: Structure) -> Drawing:
    """Return the drawing. Dependencies that are not among the tasks are not drawn."""
    wanted = {task: [p for p in dict.fromkeys(deps) if p != task] for task, deps in structure}
    parents = {task: [p for p in deps if p in wanted] for task, deps in wanted.items()}
    order, closing = _order(parents)
    acyclic = {t: [p for p in deps if (p, t) not in closing] for t, deps in parents.items()}
    reduced = _reduce(acyclic, order)
    implied = sum(map(len, acyclic.values())) - sum(map(len, reduced.values()))
    joined = {p for deps in parents.values() for p in deps} | {t for t in parents if parents[t]}
    layers = _layers(reduced, [task for task in order if task in joined])
    chains = _chains(reduced, layers)
    rows = _rows(layers, chains)
    places = _places(rows, chains)
    bottom = max((y + _height(one) for one, (_, y) in places.items()), default=0.0)
    boxes = [Box(one, *place) for one, place in places.items() if isinstance(one, str)]
    boxes += _grid([t for t in wanted if t not in joined], bottom, len(rows))
    edges = [_edge(chain, places, False) for chain in chains]
    edges += [_edge((source, target), places, True) for source, target in sorted(closing)]
    return Drawing(
        width=max((box.x + WIDTH for box in boxes), default=0.0) + MARGIN,
        height=max([bottom, *(box.y + HEIGHT for box in boxes)]) + MARGIN,
        boxes=tuple(sorted(boxes, key=lambda box: (box.x, box.y))),
        edges=tuple(edges),
        implied=implied,
        layers=len(rows),
    )


Lane = tuple[str, int]
"""Where the edges of a source pass a layer."""
Place = str | Lane


def _order(parents: Mapping[str, Sequence[str]]) -> tuple[list[str], set[tuple[str, str]]]:
    """Return tasks, dependencies first, and the edges (parent, task) that close a cycle."""
    done: dict[str, bool] = {}
    order: list[str] = []
    closing: set[tuple[str, str]] = set()
    for root in parents:
        stack = [(root, iter(parents[root]))] if root not in done else []
        done.setdefault(root, False)
        while stack:
            task, rest = stack[-1]
            parent = next(rest, None)
            if parent is None:
                done[task] = True
                order.append(task)
                stack.pop()
            elif parent not in done:
                done[parent] = False
                stack.append((parent, iter(parents[parent])))
            elif not done[parent]:
                closing.add((parent, task))
    return order, closing


def _reduce(parents: Mapping[str, Sequence[str]], order: Sequence[str]) -> dict[str, list[str]]:
    """Return the dependencies that no others imply; sets of ancestors are bits of integers."""
    bit = {task: 1 << index for index, task in enumerate(order)}
    above: dict[str, int] = {}
    kept: dict[str, list[str]] = {}
    for task in order:
        by_parents = 0
        for parent in parents[task]:
            by_parents |= above[parent]
        kept[task] = [parent for parent in parents[task] if not by_parents & bit[parent]]
        above[task] = by_parents
        for parent in parents[task]:
            above[task] |= bit[parent]
    return kept


def _layers(parents: Mapping[str, Sequence[str]], order: Sequence[str]) -> dict[str, int]:
    """Return each task's layer: after its last dependency, then so that edges get short."""
    layers: dict[str, int] = {}
    for task in order:
        layers[task] = max((layers[p] + 1 for p in parents[task]), default=0)
    edges = [(parent, task) for task in order for parent in parents[task]]
    for _ in range(ROUNDS):
        if not _shift_groups(layers, edges):
            break
    first = min(layers.values(), default=0)
    return {task: layer - first for task, layer in layers.items()}


def _shift_groups(layers: dict[str, int], edges: Sequence[tuple[str, str]]) -> bool:
    """Move groups to the right where more of their long edges lead there than come from the left.

    A group is what is joined by edges over one layer. Moved as far as its shortest long edge to
    the right allows, it gets joined to another one; so this comes to an end.
    """
    group = {task: task for task in layers}

    def root(task: str) -> str:
        while group[task] != task:
            group[task] = group[group[task]]
            task = group[task]
        return task

    for source, target in edges:
        if layers[target] - layers[source] == 1:
            group[root(source)] = root(target)
    pull: dict[str, int] = {}
    room: dict[str, int] = {}
    for source, target in edges:
        left, right = root(source), root(target)
        if left != right:
            slack = layers[target] - layers[source] - 1
            pull[left] = pull.get(left, 0) + 1
            pull[right] = pull.get(right, 0) - 1
            room[left] = min(room.get(left, slack), slack)
    wanting = [one for one in sorted(pull) if pull[one] > 0]
    if not wanting:
        return False
    moved = max(wanting, key=lambda one: (pull[one], one))
    for task in layers:
        if root(task) == moved:
            layers[task] += room[moved]
    return True


def _chains(
    parents: Mapping[str, Sequence[str]], layers: Mapping[str, int]
) -> list[tuple[Place, ...]]:
    """Return each edge as the places it goes through, its ends among them."""
    return [
        (parent, *((parent, n) for n in range(layers[parent] + 1, layers[task])), task)
        for task in layers
        for parent in parents[task]
    ]


def _rows(layers: Mapping[str, int], chains: Sequence[tuple[Place, ...]]) -> list[list[Place]]:
    """Return the places of each layer from top to bottom, ordered to cross little."""
    rows: list[list[Place]] = [[] for _ in range(max(layers.values(), default=-1) + 1)]
    for task in sorted(layers):
        rows[layers[task]].append(task)
    for lane in dict.fromkeys(place for chain in chains for place in chain[1:-1]):
        rows[int(lane[1])].append(lane)
    before, after = _neighbours(chains)
    best, fewest = [list(row) for row in rows], _crossings(rows, after)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        beside = before if down else after
        for row in rows[1:] if down else rows[-2::-1]:
            _sort(row, rows, beside)
        crossings = _crossings(rows, after)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
        if not fewest:
            break
    return best


def _neighbours(
    chains: Sequence[tuple[Place, ...]],
) -> tuple[dict[Place, list[Place]], dict[Place, list[Place]]]:
    """Return what is joined to each place in the layer before it and in the layer after."""
    before: dict[Place, list[Place]] = {}
    after: dict[Place, list[Place]] = {}
    for one, other in dict.fromkeys(pair for chain in chains for pair in pairwise(chain)):
        after.setdefault(one, []).append(other)
        before.setdefault(other, []).append(one)
    return before, after


def _sort(
    row: list[Place], rows: Sequence[Sequence[Place]], beside: Mapping[Place, Sequence[Place]]
) -> None:
    """Order a layer by the means of its neighbours; what has none keeps its share of the height."""
    at = {place: index / len(one) for one in rows for index, place in enumerate(one)}
    means = {
        place: sum(at[one] for one in beside[place]) / len(beside[place])
        if place in beside else at[place]
        for place in row
    }  # fmt: skip
    row.sort(key=lambda place: (means[place], at[place]))


def _crossings(rows: Sequence[Sequence[Place]], after: Mapping[Place, Sequence[Place]]) -> int:
    """Count the edges that cross between neighbouring layers."""
    total = 0
    for row, following in pairwise(rows):
        index = {place: n for n, place in enumerate(following)}
        tree = [0] * (len(following) + 1)
        seen = 0
        for place in row:
            ends = sorted(index[one] for one in after.get(place, ()))
            for end in ends:
                below, at = 0, end + 1
                while at:
                    below += tree[at]
                    at &= at - 1
                total += seen - below
            for end in ends:
                seen, at = seen + 1, end + 1
                while at < len(tree):
                    tree[at] += 1
                    at += at & -at
    return total


def _height(place: Place) -> int:
    return HEIGHT if isinstance(place, str) else LANE


def _places(
    rows: Sequence[Sequence[Place]], chains: Sequence[tuple[Place, ...]]
) -> dict[Place, tuple[float, float]]:
    """Return (x, y) of each place: near its neighbours, in order, and apart."""
    before, after = _neighbours(chains)
    top: dict[Place, float] = {}
    for row in rows:
        at = float(MARGIN)
        for place in row:
            top[place] = at
            at += _height(place) + GAP
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else rows[::-1]:
            beside = before if down else after
            wanted = []
            for place in row:
                near = beside.get(place) or after.get(place) or before.get(place) or [place]
                middle = sum(top[one] + _height(one) / 2 for one in near) / len(near)
                wanted.append(middle - _height(place) / 2)
            top.update(zip(row, _apart(row, wanted), strict=True))
    highest = min(top.values(), default=0.0)
    return {
        place: (float(MARGIN + layer * COLUMN), round(top[place] - highest + MARGIN, 1))
        for layer, row in enumerate(rows)
        for place in row
    }


def _apart(row: Sequence[Place], wanted: Sequence[float]) -> list[float]:
    """Return tops as near to what is wanted as the order and the gaps allow (least squares).

    With the room that those above need taken off, the tops must only not decrease: neighbours that
    would are pooled at their mean.
    """
    offsets = [0.0]
    for place in row:
        offsets.append(offsets[-1] + _height(place) + GAP)
    pools: list[tuple[float, int]] = []
    for offset, y in zip(offsets, wanted, strict=False):
        total, number = y - offset, 1
        while pools and pools[-1][0] / pools[-1][1] > total / number:
            total, number = total + pools[-1][0], number + pools[-1][1]
            pools.pop()
        pools.append((total, number))
    tops = [total / number for total, number in pools for _ in range(number)]
    return [top + offset for top, offset in zip(tops, offsets, strict=False)]


def _grid(tasks: Sequence[str], bottom: float, layers: int) -> list[Box]:
    columns = max(GRID, min(layers, 2 * GRID))
    top = bottom + (2 * GAP if bottom else MARGIN)
    return [
        Box(
            task,
            float(MARGIN + index % columns * (WIDTH + GAP)),
            top + index // columns * (HEIGHT + GAP),
        )
        for index, task in enumerate(tasks)
    ]


def _edge(
    chain: Sequence[Place], places: Mapping[Place, tuple[float, float]], cyclic: bool
) -> Edge:
    source, target = str(chain[0]), str(chain[-1])
    x, y = places[source]
    parts = [f"M{x + WIDTH:g} {y + HEIGHT / 2:g}"]
    at_x, at_y = x + WIDTH, y + HEIGHT / 2
    for place in chain[1:]:
        x, y = places[place]
        y += _height(place) / 2
        bend = max(20.0, abs(x - at_x) / 2)
        parts.append(f"C{at_x + bend:g} {at_y:g} {x - bend:g} {y:g} {x:g} {y:g}")
        at_x, at_y = x, y
        if isinstance(place, tuple):
            parts.append(f"H{x + WIDTH:g}")
            at_x = x + WIDTH
    return Edge(source, target, "".join(parts), cyclic)
