"""Nothing overlaps: boxes, routes and frames of many graphs."""

from __future__ import annotations

import sys
import time
from itertools import combinations, pairwise

import pytest

from scg.draw.layout import Box, Frame, Layout, Point, Route, layout
from scg.nodes.ir import IR

from . import graphs

EVERY = {
    **graphs.schulman(),
    "vae": graphs.vae(),
    "crossed": graphs.crossed(),
    "chain": graphs.chain(20),
    "empty": graphs.ir(),
    **{f"random {seed}": graphs.random_graph(seed) for seed in range(8)},
    **{f"far {seed}": graphs.random_graph(seed, reach=30) for seed in range(4)},
    **{f"plated {seed}": graphs.plated(seed) for seed in range(12)},
}


@pytest.fixture(scope="module", params=list(EVERY), ids=str)
def case(request: pytest.FixtureRequest) -> tuple[IR, Layout]:
    graph = EVERY[request.param]
    return graph, layout(graph, dict.fromkeys(graph.samples, "relax"))


def overlap(one: Box | Frame, two: Box | Frame) -> bool:
    across = one.left < two.right and two.left < one.right
    return across and one.top < two.bottom and two.top < one.bottom


def holds(frame: Frame, part: Box | Frame) -> bool:
    across = frame.left <= part.left and part.right <= frame.right
    return across and frame.top <= part.top and part.bottom <= frame.bottom


def ink(route: Route) -> list[Point]:
    """Points along the arcs, which are upright at both ends."""
    found = []
    for (x0, y0), (x1, y1) in pairwise(route.points):
        for step in range(21):
            t = step / 20
            ease = t * t * (3 - 2 * t)
            height = 1.5 * t * (1 - t) + t**3
            found.append((x0 + (x1 - x0) * ease, y0 + (y1 - y0) * height))
    return found


def test_every_node_and_edge_but_constants_is_drawn(case: tuple[IR, Layout]) -> None:
    graph, drawn = case
    names = [name for name in graph if name != "constant"]
    assert [box.glyph.name for box in drawn.boxes] == names
    edges = {(a, b) for a, b in graph.dag.edges if a != "constant"}
    assert {(route.source, route.target) for route in drawn.routes} == edges
    assert len(drawn.routes) == len(edges)


def test_parents_stand_above_children(case: tuple[IR, Layout]) -> None:
    _, drawn = case
    boxes = {box.glyph.name: box for box in drawn.boxes}
    for route in drawn.routes:
        assert boxes[route.source].bottom < boxes[route.target].top


def test_boxes_do_not_overlap(case: tuple[IR, Layout]) -> None:
    _, drawn = case
    for one, two in combinations(drawn.boxes, 2):
        assert not overlap(one, two), (one.glyph.name, two.glyph.name)


def test_routes_run_from_box_to_box_and_through_no_other(case: tuple[IR, Layout]) -> None:
    _, drawn = case
    boxes = {box.glyph.name: box for box in drawn.boxes}
    for route in drawn.routes:
        start, end = boxes[route.source], boxes[route.target]
        assert route.points[0] == pytest.approx((start.x, start.bottom), abs=0.011)
        x, y = route.points[-1]
        assert end.left < x < end.right
        assert end.top - 0.011 <= y < end.y
        for x, y in ink(route):
            for name, box in boxes.items():
                inside = box.left + 0.02 < x < box.right - 0.02 and box.top + 0.02 < y < box.bottom - 0.02
                assert not inside or name == route.target, (route, name)


def test_frames_contain_their_members_and_nothing_else(case: tuple[IR, Layout]) -> None:
    graph, drawn = case
    for box in drawn.boxes:
        around = {frame.plate for frame in drawn.frames if holds(frame, box)}
        assert around == set(graph.layout[box.glyph.name]), box.glyph.name
        for frame in drawn.frames:
            assert holds(frame, box) or not overlap(frame, box), (frame.plate, box.glyph.name)


def test_frames_are_nested_or_disjoint(case: tuple[IR, Layout]) -> None:
    _, drawn = case
    for one, two in combinations(drawn.frames, 2):
        assert holds(one, two) or holds(two, one) or not overlap(one, two)


def test_everything_lies_on_the_page(case: tuple[IR, Layout]) -> None:
    _, drawn = case
    page = Frame("", "", 0, 0, drawn.width, drawn.height)
    assert all(holds(page, part) for part in drawn.boxes)
    assert all(holds(page, part) for part in drawn.frames)
    assert all(
        0 < x < drawn.width and 0 < y < drawn.height for route in drawn.routes for x, y in route.points
    )


def test_the_same_graph_gives_the_same_layout() -> None:
    assert layout(graphs.random_graph(3)) == layout(graphs.random_graph(3))


def test_chains_are_straight() -> None:
    drawn = layout(graphs.schulman()["three"])
    assert len({box.x for box in drawn.boxes}) == 1


def test_plates_nest_by_content_whatever_their_order() -> None:
    """A plate that holds all nodes of another one is the outer frame, in one piece."""
    records = (graphs.sample("s"), graphs.sample("t", "s"))
    layers = {"s": ("batch",), "t": ("time", "batch")}
    drawn = layout(graphs.ir(*records, plates={"time": None, "batch": 2}, layout=layers))
    batch, time_ = sorted(drawn.frames, key=lambda frame: frame.plate)
    assert (batch.title, time_.title) == ("batch = 2", "time")
    assert holds(batch, time_)


def test_disjoint_plates_stand_apart() -> None:
    records = (
        graphs.sample("s"),
        graphs.sample("a", "s"),
        graphs.sample("b", "s"),
        graphs.cost("c", "a", "b"),
    )
    drawn = layout(graphs.ir(*records, plates={"p": 3, "q": 4}, layout={"a": ("p",), "b": ("q",)}))
    one, two = drawn.frames
    assert not overlap(one, two)


@pytest.mark.parametrize("reach", [8, 300])
def test_three_hundred_nodes_take_seconds(reach: int) -> None:
    start = time.perf_counter()
    drawn = layout(graphs.random_graph(0, 300, reach=reach))
    assert time.perf_counter() - start < 20
    assert len(drawn.boxes) == 299


def test_long_graphs_need_no_recursion() -> None:
    graph, before = graphs.chain(500), sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        assert len(layout(graph).boxes) == 502
    finally:
        sys.setrecursionlimit(before)
