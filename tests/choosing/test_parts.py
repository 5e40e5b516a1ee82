"""Parts: several estimators at one node, each for some of the costs, held against the exact gradient."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

import scg
from scg import Parts
from scg.choosing.choice import views
from scg.nodes.records import Cost
from tests.selection import by_turns
from tests.truth.judge import Case, right_or_refused

X = torch.tensor([0.3, -0.8], dtype=torch.double)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def rough(b: Tensor) -> Tensor:
    return (b.sum(-1) > 0.5).double() * 1.3 + b[..., 0]


def bits() -> scg.Graph:
    """Two bits for each of two elements, a bit below them, and costs: smooth, rough and over all elements."""
    g = scg.Graph()
    x = g.input("x", plates="batch", example=X)
    w = g.param("w", torch.tensor([0.4, -0.7]))
    b = g.sample("b", Bernoulli, logits=g.det("h", lambda x, w: x[..., None] * w + 0.2, x, w))
    y = g.sample("y", Bernoulli, logits=g.det("m", lambda b, w: (b * w).sum(-1) - 0.4, b, w))
    g.cost("smooth", lambda b, y: (b.sum(-1) - 0.3) ** 2 + y * b[..., 0], b, y)
    g.cost("rough", rough, b, differentiable=False)
    g.cost("all", lambda y: y.sum(-1) ** 2, y, plates=())
    g.cost("prior", g.log_prob(b) - g.log_prob(Bernoulli, b, logits=torch.zeros(2)))
    return g


def line() -> scg.Graph:
    """A normal for each of two elements, with a smooth cost, one with a step, and its log-probability."""
    g = scg.Graph()
    x = g.input("x", plates="batch", example=X)
    w, v = g.param("w", 0.4), g.param("v", 0.3)
    z = g.sample("z", Normal, x * w + 0.1, v * v + 0.3)
    k = g.sample("k", Normal, g.det("twice", lambda z, w: 2 * z * w, z, w), 0.5)
    g.cost("smooth", lambda z, w: (z - 0.3) ** 2 * w + z, z, w)
    g.cost("squares", lambda z, k, w: w * z**2 * 0.5 + k * z, z, k, w)
    g.cost("kl", g.log_prob(z) - g.log_prob(Normal, z, 0.0, 1.0))
    return g


def box() -> scg.Graph:
    """A node that leads to a smooth cost and to a black box."""
    g = line()
    h = g.det("both", lambda z, w: z * w, g["z"], g["w"])
    g.cost("also", h**2)
    g.cost("count", lambda h: (h > 0.1).double() * 2, h, differentiable=False)
    return g


PARTS = {
    "scores": {"smooth": "score", "*": scg.Score(baseline="moving-average")},
    "rebar and score": {("smooth", "prior"): "rebar", "rough": "score", "all": "score"},
    "relax and disarm": {"smooth": "relax", ("rough", "all", "prior"): "disarm"},
    "rebar twice": {"smooth": scg.REBAR(tune=False), ("prior", "all"): "rebar", "rough": "local"},
    "patterns": {"*": "disarm", "r*": "local", "smooth": "rebar"},
    "nets": {
        "smooth": scg.Score(baseline=nn.Linear(2, 1, dtype=torch.double), context="h"),
        "*": scg.Score(baseline="self-critical"),
    },
}


LINES: dict[str, dict[Any, Any]] = {
    "reparam and score": {"smooth": "reparam", "*": "score"},
    "reparam and lax": {("smooth", "kl"): "reparam", "squares": "lax"},
    "log-probability apart": {"kl": scg.Score(baseline="moving-average"), "*": "reparam"},
    "quadratic beside reparam": {"smooth": "quadratic", "*": "reparam"},
    "lax and score": {"smooth": "lax", "*": "score"},
}
CASES = [
    *((bits, "b", PARTS[key], "y", below) for key, below in by_turns(list(PARTS), ("score", "enumerate"))),
    *((line, "z", LINES[key], "k", below) for key, below in by_turns(list(LINES), ("score", "reparam"))),
    (box, "z", {"count": "score", "*": "reparam"}, "k", "score"),
]


@pytest.mark.parametrize(("make", "node", "parts", "other", "below"), CASES)
def test_the_estimate_is_the_sum_of_what_graphs_with_fewer_costs_give(
    make: Callable[[], scg.Graph], node: str, parts: dict[Any, Any], other: str, below: str
) -> None:
    """Under the same noise, up to rounding: each part sees the graph with its own costs alone."""
    program = scg.compile(make(), {node: Parts(parts), other: below}, samples=3)
    noise = program.draw_noise(5, x=X)
    program(x=X, noise=noise).loss.backward()
    found = {name: torch.zeros_like(p) for name, p in program.named_parameters() if name in ("w", "v")}
    fresh = 0
    for view in views(program._latest().facts, node, program._latest().choices[node]):
        single = scg.compile(
            only(make(), view.facts.ir.costs), {node: view.choice.estimator, other: below}, samples=3
        )
        count = len(view.choice.asks.fresh)
        own = {f"{node}.{index + 1}": noise[f"{node}.{fresh + index + 1}"] for index in range(count)}
        fresh += count
        single(x=X, noise={node: noise[node], other: noise[other], **own}).loss.backward()
        for name in found:
            grad = single.get_parameter(name).grad
            found[name] += 0 if grad is None else grad
    for name, value in found.items():
        assert torch.allclose(program.get_parameter(name).grad, value, rtol=1e-9, atol=1e-12), name


def only(g: scg.Graph, costs: Collection[str]) -> scg.Graph:
    """Take the other costs out of a graph."""
    for name in [name for name in g if isinstance(g._records[name], Cost) and name not in costs]:
        del g._records[name]
    return g


@pytest.mark.parametrize(
    ("make", "policy"),
    [
        (bits, {"b": Parts(PARTS["rebar and score"]), "y": Parts({"smooth": "rebar", "all": "disarm"})}),
        (line, {"z": Parts(LINES["reparam and score"]), "k": "score"}),
    ],
)
def test_parts_give_the_exact_gradient(make: Callable[[], scg.Graph], policy: dict[str, Any]) -> None:
    case = Case(
        make,
        lambda g: scg.exact_objective(g, points=24),
        lambda g: {"x": X},
        policy=policy,
        samples=512,
        must_work=True,
    )
    right_or_refused(case)


def test_a_node_that_leads_to_both_kinds_of_costs_is_refused() -> None:
    g = line()
    h = g.det("both", lambda z, w: z * w, g["z"], g["w"])
    g.cost("also", h**2)
    g.cost("other", lambda h: (h > 0.1).double() * 2 + h, h)
    with pytest.raises(scg.PolicyError, match="'both' .* leads to also, other: declare it once for each"):
        scg.compile(g, {"z": Parts({"other": "score", "*": "reparam"})})


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (lambda: Parts({"smooth": "score"}), "leave out rough, all, prior, which 'b' reaches"),
        (lambda: Parts({"smoth": "score", "*": "score"}), "name 'smoth', which is no cost"),
        (lambda: Parts({("smooth", "all"): "score", "smooth": "rebar", "*": "score"}), "'smooth' twice"),
        (lambda: Parts({"smooth": "enumerate", "*": "score"}), "cannot have 'enumerate'"),
        (lambda: Parts({"rough": "rebar", "*": "score"}), "rebar cannot estimate 'b': it needs a cost at"),
        (lambda: Parts({"rough": "reparam", "*": "score"}), "reparam cannot estimate 'b'"),
        (lambda: Parts({}), "a dict from costs to estimators"),
        (lambda: Parts({1: "score"}), "names of costs, or tuples of them"),  # type: ignore[dict-item]
        (lambda: Parts({"*": 3}), "names or instances of estimators, not int"),  # type: ignore[dict-item]
        (lambda: Parts({"*": "scor"}), "there is no estimator 'scor'"),
    ],
)
def test_parts_that_mean_nothing_are_refused(parts: Callable[[], Parts], message: str) -> None:
    with pytest.raises(scg.ScgError, match=message):
        scg.compile(bits(), {"b": parts()})


def test_parts_train_are_explained_copied_and_exported(tmp_path: Any) -> None:
    parts = Parts({"smooth": "rebar", "*": scg.Score(baseline="moving-average")})
    program = scg.compile(bits(), {"b": parts, "y": "score"}, samples=4)
    told = program.explain()
    assert "  smooth: rebar\n    charged with smooth; 3 evaluations below" in told
    assert "  rough_all_prior: score\n    charged with rough, all (all of batch), prior; 1 evaluation" in told
    names = {name for name, _ in program.named_parameters()} - {"w"}
    assert names == {"controls.b.smooth.temperature.log", "controls.b.smooth.eta.log"}
    estimate = program(x=X, seed=0)
    estimate.loss.backward()
    assert all(parameter.grad is not None for parameter in program.control_parameters())
    assert program.controls.b["rough_all_prior"].mean() != 0
    for copied in (
        copy.deepcopy(program),
        pickle.loads(pickle.dumps(scg.compile(smooth(), parts_of_smooth()))),
    ):
        assert copied(x=X, seed=0).loss.isfinite()
    assert "controls" in program.export(tmp_path / "parts.py")


def smooth() -> scg.Graph:
    """A graph whose functions can be pickled."""
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.input("x", plates="batch", example=X) + g.param("w", 0.1))
    g.cost("one", b**2)
    g.cost("two", (b - 0.3) ** 2)
    return g


def parts_of_smooth() -> dict[str, Parts]:
    return {"b": Parts({"one": "rebar", "two": "relax"})}


def two_bits() -> scg.Graph:
    """Two bits that lead to the same costs, and one that leads to none."""
    g = scg.Graph()
    w = g.param("w", 0.4)
    one, two = g.sample("z1", Bernoulli, logits=w), g.sample("z2", Bernoulli, logits=2 * w)
    g.sample("z3", Bernoulli, logits=3 * w)
    g.cost("a_b", lambda one, two: (one - 0.45) ** 2 * two, one, two)
    g.cost("a", 3 * one + two)
    g.cost("b", one * two)
    return g


def test_parts_whose_costs_have_names_that_join_to_one_learn_apart() -> None:
    parts = Parts({"a_b": "rebar", ("a", "b"): scg.Score(baseline="moving-average")})
    program = scg.compile(two_bits(), {"z1": parts, "z2": "score"})
    assert {*program.controls.z1} == {"a_b", "a_b_"}
    right_or_refused(
        Case(two_bits, scg.exact_objective, policy={"z1": parts, "z2": "score"}, samples=512, must_work=True)
    )


def test_a_node_in_parts_may_reach_no_cost() -> None:
    program = scg.compile(two_bits(), {"z*": Parts({"a": "relax", "*": "score"})})
    assert "z3: parts (asked for); Bernoulli\n    reaches no cost" in program.explain()
    program(seed=0).loss.backward()
    assert program.w.grad is not None


@pytest.mark.parametrize("is_named", [True, False])
def test_a_name_in_parts_makes_a_network_for_each_node_and_an_instance_shares_one(
    is_named: bool, tmp_path: Any
) -> None:
    parts = Parts({"a": "relax" if is_named else scg.RELAX(), "*": "score"})
    program = scg.compile(two_bits(), {"z*": parts})
    assert (program.controls.z1.a.net is program.controls.z2.a.net) is not is_named
    assert "controls" in program.export(tmp_path / "parts.py")


def test_parts_are_compiled_by_torch() -> None:
    program = scg.compile(smooth(), parts_of_smooth())
    program(x=X, seed=0).loss.backward()
    eager = program.w.grad.clone()
    program.zero_grad()
    program.compile(backend="eager")
    program(x=X, seed=0).loss.backward()
    assert torch.allclose(program.w.grad, eager)


def test_every_part_draws_noise_of_its_own() -> None:
    program = scg.compile(smooth(), {"b": Parts({"one": "rebar", "two": "rebar"})})
    noise = program.draw_noise(0, x=X)
    assert {"b", "b.1", "b.2"} == noise.keys()

    def found(**changed: Tensor) -> Tensor:
        program.zero_grad()
        program(x=X, noise={**noise, **changed}).loss.backward()
        return program.w.grad.clone()

    start = found()
    for name in ("b.1", "b.2"):
        assert not torch.allclose(found(**{name: 1 - noise[name]}), start)
