"""The drawing of a project, as geometry."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dispatch_controller.web.drawing import HEIGHT, WIDTH, Drawing, Structure, draw

DIAMOND: Structure = (("a", ()), ("b", ("a",)), ("c", ("a",)), ("d", ("b", "c", "a")))


def where(drawing: Drawing) -> dict[str, tuple[float, float]]:
    return {box.id: (box.x, box.y) for box in drawing.boxes}


@st.composite
def structures(source: st.DrawFn, cyclic: bool = False) -> Structure:
    size = source(st.integers(0, 25))
    ids = [f"t{n:02d}" for n in range(size)]
    return tuple(
        (
            ids[n],
            tuple(source(st.lists(st.sampled_from(ids if cyclic else ids[:n]), max_size=4)))
            if cyclic or n
            else (),
        )
        for n in range(size)
    )


def test_a_diamond_has_three_layers_and_no_implied_edge() -> None:
    drawing = draw(DIAMOND)
    at = where(drawing)
    assert at["a"][0] < at["b"][0] == at["c"][0] < at["d"][0]
    assert at["a"][1] == at["d"][1]
    assert {(edge.source, edge.target) for edge in drawing.edges} == {
        ("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"),
    }  # fmt: skip
    assert (drawing.implied, drawing.layers) == (1, 3)


@settings(max_examples=150, deadline=None)
@given(structures())
def test_every_task_stands_right_of_what_it_waits_for_and_none_overlap(given: Structure) -> None:
    drawing = draw(given)
    at = where(drawing)
    assert sorted(at) == sorted(task for task, _ in given)
    for task, parents in given:
        for parent in parents:
            assert at[parent][0] + WIDTH < at[task][0]
    boxes = drawing.boxes
    for n, one in enumerate(boxes):
        assert 0 <= one.x <= drawing.width - WIDTH
        assert 0 <= one.y <= drawing.height - HEIGHT
        for other in boxes[n + 1 :]:
            assert abs(one.x - other.x) >= WIDTH or abs(one.y - other.y) >= HEIGHT


@settings(max_examples=100, deadline=None)
@given(structures())
def test_what_is_left_out_is_implied_by_what_is_drawn(given: Structure) -> None:
    edges = {(edge.source, edge.target) for edge in draw(given).edges}
    above: dict[str, set[str]] = {}
    for task, _ in given:
        above[task] = {p for p, t in edges if t == task}
        above[task] |= {a for parent in above[task] for a in above[parent]}
    for task, parents in given:
        assert set(parents) <= above[task]


@settings(max_examples=100, deadline=None)
@given(structures(cyclic=True))
def test_cycles_are_drawn_and_marked(given: Structure) -> None:
    drawing = draw(given)
    assert len(drawing.boxes) == len(given)
    if any(edge.cyclic for edge in drawing.edges):
        at = where(drawing)
        assert all(
            at[edge.source][0] < at[edge.target][0] for edge in drawing.edges if not edge.cyclic
        )


def test_a_cycle_is_one_edge_back() -> None:
    drawing = draw((("a", ("c",)), ("b", ("a",)), ("c", ("b",))))
    assert [edge.cyclic for edge in drawing.edges].count(True) == 1


def test_a_chain_is_straight_and_a_wait_is_short() -> None:
    chain = tuple((f"t{n}", (f"t{n - 1}",) if n else ()) for n in range(8))
    late: Structure = (("root", ()), ("waits", ("root", "t6")))
    drawing = draw(tuple(sorted((*chain, *late))))
    at = where(drawing)
    assert len({at[f"t{n}"][1] for n in range(7)}) == 1
    assert at["root"][0] == at["t6"][0]  # beside what else its task waits for


def test_a_dependency_elsewhere_and_one_on_itself_are_not_drawn() -> None:
    drawing = draw((("a", ("a", "elsewhere")), ("b", ())))
    assert drawing.edges == ()
    assert len(drawing.boxes) == 2


def test_tasks_without_edges_stand_in_a_grid() -> None:
    drawing = draw(tuple((f"t{n:02d}", ()) for n in range(23)))
    assert len({box.x for box in drawing.boxes}) == len({box.y for box in drawing.boxes}) == 5


def test_nothing_is_an_empty_drawing() -> None:
    assert draw(()).boxes == ()


def test_the_same_tasks_give_the_same_drawing() -> None:
    draw.cache_clear()
    first = draw(DIAMOND)
    draw.cache_clear()
    assert draw(DIAMOND) == first
