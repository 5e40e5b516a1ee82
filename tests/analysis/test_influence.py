"""Influence: which costs a node reaches, and the plates that every path on the way keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Bernoulli

import scg
from scg.analysis.influence import below, influence, stochastic_part, stochastic_plates, useful
from scg.nodes.ir import IR


def anything(*parents: Any, **named: Any) -> Any:
    raise AssertionError("a static pass calls no function")


def reaches(ir: IR, name: str) -> set[str]:
    facts = influence(ir)
    return set(facts.costs_of(facts.reached[name]))


def kept(ir: IR, name: str, cost: str) -> tuple[str, ...]:
    return influence(ir).kept(ir, name, cost)


def start() -> scg.Graph:
    g = scg.Graph()
    g.input("x", plates=("a", "b"))
    g.input("y", plates="b")
    g.sample("s", Bernoulli, logits=g["x"])
    return g


def test_reached_are_the_costs_below_and_no_others() -> None:
    g = scg.Graph()
    t = g.param("t", 0.0)
    a = g.sample("a", Bernoulli, logits=t)
    b = g.sample("b", Bernoulli, logits=t)
    c = g.sample("c", Bernoulli, logits=a)
    g.cost("of_a", a)
    g.cost("of_both", anything, c, b)
    g.cost("of_t", t)
    ir = g.freeze()
    assert [reaches(ir, name) for name in "abc"] == [{"of_a", "of_both"}, {"of_both"}, {"of_both"}]
    assert stochastic_part(ir) == {"a", "b", "c", "of_a", "of_both"}


def test_a_node_below_every_cost_reaches_none() -> None:
    g = scg.Graph()
    g.sample("a", Bernoulli, logits=g.param("t", 0.0))
    g.sample("b", Bernoulli, logits=g["a"])
    g.det("h", anything, g["b"])
    g.cost("c", g["a"])
    ir = g.freeze()
    assert reaches(ir, "b") == set()
    assert useful(ir) == {"c", "a", "t"}


def test_an_aligned_cost_keeps_every_plate() -> None:
    g = start()
    g.cost("c", anything, g["s"], g["y"])
    assert kept(g.freeze(), "s", "c") == ("a", "b")


@pytest.mark.parametrize(
    ("declare", "expected"),
    [
        (lambda g: g.det("m", anything, g["s"], plates="b"), ("b",)),
        (lambda g: g.det("m", anything, g["s"], plates=()), ()),
        (lambda g: g.det("m", anything, g["s"], mixes="b"), ("a",)),
        (lambda g: g.det("m", anything, g["s"], mixes=("a", "b")), ()),
        (lambda g: g.det("m", anything, g["s"]), ("a", "b")),
        (lambda g: g.det("m", anything, g.det("n", anything, g["s"], plates="b"), plates=("a", "b")), ("b",)),
        (lambda g: g.det("m", anything, g.det("n", anything, g["s"], mixes="a"), mixes="b"), ()),
        (lambda g: g.sample("m", Bernoulli, logits=g.det("n", anything, g["s"], plates="a")), ("a",)),
    ],
)
def test_what_leaves_or_mixes_a_plate_loses_it(
    declare: Callable[[scg.Graph], scg.Node], expected: tuple[str, ...]
) -> None:
    g = start()
    g.cost("c", anything, declare(g))
    assert kept(g.freeze(), "s", "c") == expected


def test_a_cost_may_mix_by_itself() -> None:
    g = start()
    g.cost("c", anything, g["s"], mixes="a")
    assert kept(g.freeze(), "s", "c") == ("b",)


def test_the_plates_kept_are_those_of_all_paths_together() -> None:
    """One path keeps both plates, the other loses one: what is common to both counts."""
    g = start()
    aggregate = g.det("m", anything, g["s"], plates="b")
    g.cost("c", anything, g["s"], aggregate)
    g.cost("d", g["s"])
    ir = g.freeze()
    assert kept(ir, "s", "c") == ("b",) and kept(ir, "s", "d") == ("a", "b")
    assert influence(ir).kept_by_all(ir, "s") == ("b",)


def test_a_plate_that_a_node_lacks_is_none_of_its_own() -> None:
    g = start()
    g.sample("t", Bernoulli, logits=g["y"])
    g.cost("c", anything, g["s"], g["t"])
    ir = g.freeze()
    assert kept(ir, "t", "c") == ("b",) and kept(ir, "s", "c") == ("a", "b")


def test_an_ordered_plate_is_kept_like_any_other() -> None:
    g = scg.Graph()
    time = g.plate("time", ordered=True, size=4)
    g.sample("s", Bernoulli, probs=0.5, plates=time)
    g.cost("c", g.det("h", anything, g["s"]))
    g.cost("d", g.det("m", anything, g["s"], mixes=time))
    ir = g.freeze()
    assert kept(ir, "s", "c") == ("time",) and kept(ir, "s", "d") == ()


def test_crossing_matters_only_where_a_stochastic_ancestor_keeps_the_plate() -> None:
    g = start()
    g.det("of_inputs", anything, g["x"])
    g.det("of_sample", anything, g["s"], g["y"])
    g.det("mixed", anything, g["of_sample"], mixes="a")
    g.det("after", anything, g["mixed"])
    g.det("again", anything, g.det("gone", anything, g["s"], plates=()), plates="b")
    shared = stochastic_plates(g.freeze())
    assert shared["x"] == shared["of_inputs"] == shared["again"] == frozenset()
    assert shared["s"] == shared["of_sample"] == {"a", "b"}
    assert shared["mixed"] == shared["after"] == {"b"}


PLATES = ("a", "b")


@st.composite
def graphs(draw: st.DrawFn) -> scg.Graph:
    """Draw a graph with random edges, aggregates and mixes."""
    g = scg.Graph()
    g.input("x", plates=PLATES)
    names = ["x"]
    for index in range(draw(st.integers(2, 9))):
        parents = [
            g[name] for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
        ]
        kind = draw(st.sampled_from(["det", "aggregate", "mix", "sample", "cost"]))
        plates = draw(st.sets(st.sampled_from(PLATES)))
        name = f"n{index}"
        if kind == "sample":
            g.sample(name, anything, *parents)
        elif kind == "cost":
            g.cost(name, anything, *parents)
            continue
        elif kind == "aggregate":
            g.det(name, anything, *parents, plates=tuple(sorted(plates)))
        else:
            g.det(name, anything, *parents, mixes=tuple(sorted(plates)) if kind == "mix" else ())
        names.append(name)
    return g


@given(graphs())
def test_a_sweep_finds_what_a_walk_over_all_paths_finds(g: scg.Graph) -> None:
    ir = g.freeze()
    facts = influence(ir)
    for name in ir.samples:
        assert set(facts.costs_of(facts.reached[name])) == set(ir.costs) & nx.descendants(ir.dag, name)
        assert set(below(ir, name)) == nx.descendants(ir.dag, name)
        for cost in facts.costs_of(facts.reached[name]):
            common = set(ir.layout[name])
            for path in nx.all_simple_paths(ir.dag, name, cost):
                for node in path:
                    common &= set(ir.layout[node]) - set(getattr(ir[node], "mixes", ()))
            assert set(facts.kept(ir, name, cost)) == common


def test_long_chains_do_not_recurse() -> None:
    g = scg.Graph()
    node = g.param("t", torch.zeros(()))
    for index in range(5_000):
        node = g.sample(f"s{index}", anything, node)
        g.cost(f"c{index}", node)
    ir = g.freeze()
    facts = influence(ir)
    assert facts.reached["s0"].bit_count() == 5_000 and facts.reached["s4999"].bit_count() == 1
