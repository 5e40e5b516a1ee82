"""Strategies: graphs keep to what was asked for, policies are never refused, inputs are like examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import networkx as nx
import pytest
import torch
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, Normal

import scg
from scg.analysis.facts import gather
from scg.nodes.ir import IR
from scg.nodes.records import Det, LogProb, Sample
from scg.testing import as_code, graphs, inputs, policies
from scg.testing.words import FINITE, NODES, Kind


def laws(g: scg.Graph) -> dict[str, Any]:
    ir = g.freeze()
    found = gather(ir, ir.store.examples).trace.densities
    return {name: found[name] for name in ir.samples}


@given(st.sampled_from(["finite", "continuous"]).flatmap(lambda kind: st.tuples(st.just(kind), graphs(kind))))
@settings(max_examples=20)
def test_random_variables_are_of_the_kind(drawn: tuple[str, scg.Graph]) -> None:
    kind, g = drawn
    assert {density.law.finite for density in laws(g).values()} == {kind == "finite"}


def layers(g: scg.Graph) -> int:
    """Return the most steps from a leaf to a cost; what reads a value is no step."""
    ir = g.freeze()
    steps = {name: not name.endswith(("_read", "_log_prob")) for name in ir}
    weighed = nx.DiGraph()
    for parent, child in ir.dag.edges:
        weighed.add_edge(parent, child, steps=int(steps[child]))
    return int(nx.dag_longest_path_length(weighed, weight="steps"))


@given(graphs(depth=2, width=1, plates=1))
def test_graphs_keep_within_bounds(g: scg.Graph) -> None:
    ir = g.freeze()
    assert layers(g) <= 1 + 2 + 1
    assert len(ir.plates) <= 1
    assert 1 <= len(ir.samples) <= 1 + 2 and 1 <= len(ir.costs) <= 3
    assert all(plate.size is not None for plate in ir.plates.values())


@given(graphs(depth=4, width=3, cases=16))
@settings(max_examples=30)
def test_joint_outcomes_are_bounded(g: scg.Graph) -> None:
    ir, count = g.freeze(), 1
    for name, density in laws(g).items():
        elements = 1
        for plate in ir.layout[name]:
            elements *= ir.plates[plate].size or 1
        one = len(density.law.support(density.parameters)) if density.law.finite else NODES
        count *= one ** (elements * (2 if density.inner else 1))
    assert count <= 16


@given(graphs(plates=1, depth=1, cases=4))
@settings(max_examples=30)
def test_there_is_always_a_sample(g: scg.Graph) -> None:
    assert g.freeze().samples and g.freeze().costs


def test_too_few_joint_outcomes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"graphs\(cases=3\): an element of a Normal counts as 4"):
        find(graphs(cases=3), lambda g: True)


def test_the_simplest_graph_is_a_coin() -> None:
    g = find(graphs(depth=1, width=1), lambda g: True)
    assert 'g.sample("z0", Bernoulli, logits=w0)' in as_code(g)
    assert len(g) == 3


@pytest.mark.parametrize("word", [*FINITE, "normal", "blur"])
def test_every_law_is_drawn(word: str) -> None:
    def has(g: scg.Graph) -> bool:
        several = [record for record in g.freeze().records() if isinstance(record, Sample)]
        if word in FINITE:
            return any(record.dist.call is FINITE[word].dist for record in several)
        return any((record.dist.call is Normal) == (word == "normal") for record in several)

    kind: Kind = "finite" if word in FINITE else "continuous"
    assert len(find(graphs(kind, depth=1, plates=0), has)) <= 5


WANTED: dict[str, Callable[[IR], bool]] = {
    "discount": lambda ir: any(plate.discount < 1 for plate in ir.plates.values()),
    "mixed": lambda ir: any(isinstance(record, Det) and bool(record.mixes) for record in ir.records()),
    "added up": lambda ir: any(name.startswith("total") for name in ir),
    "along": lambda ir: any(name.startswith("past") for name in ir),
    "two plates": lambda ir: len(ir.plates) == 2,
    "input": lambda ir: bool(ir.inputs),
    "log": lambda ir: any(isinstance(record, LogProb) for record in ir.records()),
}


@pytest.mark.parametrize("name", WANTED)
def test_what_graphs_may_have_is_drawn_and_shrinks(name: str) -> None:
    assert len(find(graphs(depth=2, width=1), lambda g: WANTED[name](g.freeze()))) <= 6


@given(st.data())
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_policies_are_never_refused(data: st.DataObject) -> None:
    g = data.draw(graphs(depth=2))
    samples = data.draw(st.sampled_from([None, 2]))
    policy = data.draw(policies(g, samples=samples))
    assert list(policy) == list(g.freeze().samples)
    given = data.draw(inputs(g))
    program = scg.compile(g, policy, samples=samples)
    loss = program(seed=0, **given).loss
    loss.backward()
    assert loss.isfinite()


class Never(scg.Score):
    """An estimator that is for nothing."""

    name: ClassVar[str] = "never"

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return scg.Refusal("no")


def coin(**options: Any) -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", **options)
    z = g.sample("z", Bernoulli, logits=x["real"] * g.param("w", 0.5))
    g.sample("y", Normal, z, 1.0)
    g.cost("c", z + g["y"])
    return g


EXAMPLE = {"real": torch.tensor(0.5), "whole": torch.tensor([[3, 5]]), "true": torch.tensor([True, False])}


def test_policies_are_of_the_estimators_given() -> None:
    g = coin(example=EXAMPLE)
    names = {
        (find(policies(g, ["enumerate", "score"]), lambda p, n=name: p["z"].name == n)["z"].name, name)
        for name in ("enumerate", "score")
    }
    assert names == {("enumerate", "enumerate"), ("score", "score")}
    own = scg.Score(baseline="moving-average")
    assert find(policies(g, [own]), lambda policy: True) == {"z": own, "y": own}
    with pytest.raises(scg.GraphError, match="every estimator that was given refuses 'y': give \"score\""):
        policies(g, ["enumerate"])
    with pytest.raises(scg.GraphError, match="every estimator that was given refuses 'z'"):
        policies(g, [Never()])


def test_options_are_among_policies() -> None:
    g, quick = coin(example=EXAMPLE), settings(phases=[Phase.generate], max_examples=500)
    for wanted in ("MovingAverage", "SelfCritical", "temperature=1.0", "relaxed_cost=False"):
        find(policies(g), lambda policy, wanted=wanted: wanted in repr(policy["z"]), settings=quick)
    find(policies(g, samples=2), lambda policy: "LeaveOneOut" in repr(policy["z"]), settings=quick)


@given(st.data())
@settings(max_examples=20)
def test_inputs_are_like_the_examples(data: st.DataObject) -> None:
    found = data.draw(inputs(coin(example=EXAMPLE)))["x"]
    assert found.keys() == EXAMPLE.keys()
    for name, example in EXAMPLE.items():
        value: Tensor = found[name]
        assert (value.shape, value.dtype) == (example.shape, example.dtype)
    assert bool((found["real"] * 8).frac() == 0) and bool((found["whole"] - 3).abs().max() <= 2)


def test_an_input_without_an_example_has_no_inputs() -> None:
    with pytest.raises(scg.GraphError, match="input 'x' has no example, so its shape is not known"):
        inputs(coin())
