"""Plates: one order for the whole graph, the union of the parents' plates, and what a function sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, Normal

import scg
from scg.nodes.plates import insertion, plate_order

NAMES = "abcde"


@given(st.permutations(NAMES), st.data())
def test_the_order_agrees_with_every_declaration(order: list[str], data: st.DataObject) -> None:
    declared = [
        tuple(name for name in order if name in chosen)
        for chosen in data.draw(st.lists(st.sets(st.sampled_from(NAMES))))
    ]
    found = plate_order(data.draw(st.permutations(NAMES)), declared)
    assert sorted(found) == list(NAMES)
    for names in declared:
        assert [name for name in found if name in names] == list(names)


def test_without_declarations_plates_keep_the_order_in_which_they_were_named() -> None:
    assert plate_order(["c", "a", "b"], []) == ("c", "a", "b")


@pytest.mark.parametrize(
    "declared",
    [[("a", "b"), ("b", "a")], [("a", "b"), ("b", "c"), ("c", "a")], [("a", "c"), ("c", "b"), ("b", "a")]],
)
def test_contradicting_orders_are_refused(declared: list[tuple[str, ...]]) -> None:
    with pytest.raises(scg.PlateError, match="contradicting orders.*'a'.*same order everywhere"):
        plate_order("abc", declared)


@given(st.lists(st.sampled_from(NAMES), unique=True), st.data())
def test_insertion_gives_missing_plates_size_one(want: list[str], data: st.DataObject) -> None:
    sizes = {name: 2 + NAMES.index(name) for name in NAMES}
    have = tuple(name for name in want if data.draw(st.booleans()))
    value = torch.zeros(*(sizes[name] for name in have), 9)
    index = insertion(have, tuple(want))
    shown = value if index is None else value[index]
    assert shown.shape == (*(sizes[name] if name in have else 1 for name in want), 9)


def two_plates() -> scg.Graph:
    g = scg.Graph()
    g.input("x", plates=("a", "b"), example=torch.arange(6.0).view(2, 3))
    g.input("y", plates="b", example=torch.tensor([10.0, 20.0, 30.0]))
    g.input("z", plates="a", example=torch.tensor([100.0, 200.0]))
    g.param("w", 0.5)
    return g


def kept(g: scg.Graph, *names: str) -> dict[str, Any]:
    return scg.compile(g, keep=names)(**g.freeze().store.examples).kept


def test_a_node_has_the_union_of_its_parents_plates_in_the_graph_s_order() -> None:
    g = two_plates()
    g.det("h", lambda y, z: y + z, g["y"], g["z"])
    assert g.freeze().layout["h"] == ("a", "b")
    assert kept(g, "h")["h"].tolist() == [[110.0, 120.0, 130.0], [210.0, 220.0, 230.0]]


def test_functions_see_size_one_where_a_parent_lacks_a_plate_and_nothing_where_it_has_none() -> None:
    seen: dict[str, tuple[int, ...]] = {}

    def look(x: Tensor, y: Tensor, z: Tensor, w: Tensor) -> Tensor:
        seen.update(x=x.shape, y=y.shape, z=z.shape, w=w.shape)
        return x + y + z + w

    g = two_plates()
    g.det("h", look, g["x"], g["y"], g["z"], g["w"])
    kept(g, "h")
    assert seen == {"x": (2, 3), "y": (1, 3), "z": (2, 1), "w": ()}


def test_a_det_with_more_plates_expands() -> None:
    g = two_plates()
    g.det("h", lambda w: w[None, None] * 2, g["w"], plates=("a", "b"))
    assert torch.equal(kept(g, "h")["h"], torch.ones(2, 3))


def test_a_det_with_fewer_plates_is_an_aggregate() -> None:
    g = two_plates()
    g.det("h", lambda x: x.sum(0), g["x"], plates="b")
    assert g.freeze().layout["h"] == ("b",)
    assert kept(g, "h")["h"].tolist() == [3.0, 5.0, 7.0]


def test_a_sample_with_more_plates_draws_independently() -> None:
    g = two_plates()
    g.sample("s", Normal, g["y"], 1.0, plates=("a", "b"))
    drawn = scg.compile(g)(seed=0, **g.freeze().store.examples).samples["s"]
    assert drawn.shape == (2, 3)
    assert not torch.equal(drawn[0], drawn[1])


def test_a_sample_with_fewer_plates_than_its_parents_is_refused() -> None:
    g = two_plates()
    g.sample("s", Normal, g["y"], 1.0, plates=())
    with pytest.raises(scg.PlateError, match=r"sample 's' .*without the plates \['b'\].*aggregate"):
        scg.compile(g)


def test_dimensions_that_are_no_plates_are_one_event() -> None:
    g = two_plates()
    logits = g.det("logits", lambda y: y[:, None] + torch.zeros(4), g["y"])
    b = g.sample("b", Bernoulli, logits=logits)
    g.log_prob(b)
    found = kept(g, "b", "b_log_prob")
    assert found["b"].shape == (3, 4) and found["b_log_prob"].shape == (3,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "'p' has size 0.*at least one"),
        ({"reduce": "max"}, "'p'.*'mean' or 'sum', not 'max'"),
        ({"discount": 0.9}, "'p' has a discount but no order.*ordered=True"),
        ({"discount": 1.5, "ordered": True}, r"'p': discount lies in \(0, 1\], not 1.5"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(scg.PlateError, match=words):
        scg.Graph().plate("p", **options)


def test_plate_names_are_identifiers_and_named_once() -> None:
    with pytest.raises(scg.PlateError, match="'a b' is not"):
        scg.Graph().plate("a b")
    with pytest.raises(scg.PlateError, match="name a plate twice"):
        scg.Graph().param("t", torch.zeros(2, 2), plates=("a", "a"))


@pytest.mark.parametrize(("reduce", "expected"), [("mean", 2.0), ("sum", 6.0)])
def test_reduce_says_how_the_objective_counts_elements(reduce: str, expected: float) -> None:
    g = scg.Graph()
    plate = g.plate("p", reduce=reduce)
    g.cost("c", g.input("x", plates=plate, example=torch.tensor([1.0, 2.0, 3.0])))
    estimate = scg.compile(g)(x=torch.tensor([1.0, 2.0, 3.0]))
    assert float(estimate.loss) == expected
    assert estimate.costs["c"].tolist() == [1.0, 2.0, 3.0]


def test_a_discount_is_part_of_the_objective() -> None:
    g = scg.Graph()
    time = g.plate("time", reduce="sum", ordered=True, discount=0.5)
    g.cost("c", g.input("x", plates=time, example=torch.ones(3)))
    assert float(scg.compile(g)(x=torch.tensor([1.0, 2.0, 4.0])).loss) == 1.0 + 0.5 * 2.0 + 0.25 * 4.0


def test_the_size_of_a_plate_may_be_declared() -> None:
    g = scg.Graph()
    g.sample("b", Bernoulli, probs=0.5, plates=g.plate("p", size=5))
    assert scg.compile(g)(seed=0).samples["b"].shape == (5,)
