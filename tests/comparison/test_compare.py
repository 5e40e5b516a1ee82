"""Comparing: variances and biases with closed forms, what a run takes, and that nothing is left behind."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

import scg
from scg.comparison.comparison import STANDARD

LOGIT, T = 1.5, 0.3
P = 1 / (1 + math.exp(-LOGIT))
EXACT = P * (1 - P) * (1 - 2 * T)
SHORT = {"steps": 20, "draws": 4096, "repeats": 2}


def coin() -> scg.Graph:
    g = scg.Graph("coin")
    b = g.sample("b", Bernoulli, logits=g.param("l", LOGIT))
    g.cost("cost", lambda b: (b - T).square(), b)
    return g


def layers() -> scg.Graph:
    """Three bits, then two that depend on them, and costs that are no sums over bits."""
    g = scg.Graph("layers")
    first = g.sample("first", Bernoulli, logits=g.param("l", torch.tensor([0.3, -0.8, 0.1])))
    logits = g.det("logits", lambda b, w: b @ w, first, g.param("w", torch.arange(6.0).view(3, 2) / 5))
    second = g.sample("second", Bernoulli, logits=logits)
    g.cost("cost", lambda a, b: (a.sum(-1) - 2 * b.sum(-1) + 0.4) ** 2, first, second)
    return g


@dataclass(frozen=True)
class Larger(scg.Scored):
    """A score that is a tenth too large, and does not know."""

    name: ClassVar[str] = "larger"

    def refuses(self, facts: scg.NodeFacts) -> None:
        return None

    def baseline(self, site: scg.Site) -> Tensor:
        return torch.zeros(())

    def factor(self, site: scg.Site) -> Tensor:
        return 1.1 * site.credit


def test_the_variance_of_the_score_has_a_closed_form() -> None:
    """A gradient is (1 - t)^2 (1 - p) with probability p, else -t^2 p; of two with leave-one-out, half of
    the difference of costs times that of scores, which is not 0 where the coins differ."""
    found = scg.compare(coin(), ["score"], **SHORT)
    one = P * (1 - P) * ((1 - T) ** 2 * (1 - P) + T**2 * P) ** 2
    differ, value = 2 * P * (1 - P), (1 - 2 * T) / 2
    two = differ * (1 - differ) * value**2
    assert found["score"].variance == pytest.approx(one, rel=0.05)
    assert found[STANDARD].variance == pytest.approx(two, rel=0.05)
    assert found.relative(found["score"], "evaluations") == pytest.approx(one / two / 2, rel=0.1)
    assert found.relative(found[STANDARD], "seconds") == 1.0


def test_a_bias_with_a_closed_form_is_found() -> None:
    """Straight-through is p (1 - p) df(b), whose mean is 2 p (1 - p) (p - t)."""
    found = scg.compare(coin(), ["straight-through", "reinmax", "score"], **SHORT)
    row = found["straight-through"]
    bias = abs(2 * P * (1 - P) * (P - T) - EXACT) / EXACT
    assert row.is_seen and row.is_declared and not row.is_right
    assert abs(row.bias - bias) < 4 * row.error < bias / 4
    assert found["reinmax"].is_declared and not found["reinmax"].is_seen
    assert found["score"].is_right
    assert found.rows[0].is_right and not found.rows[-1].is_right


def test_a_bias_that_is_not_declared_is_seen() -> None:
    found = scg.compare(coin(), {"wrong": Larger()}, steps=0, draws=32_768, repeats=1)
    assert found["wrong"].is_seen and not found["wrong"].is_declared
    assert found["wrong"].bias == pytest.approx(0.1, abs=4 * found["wrong"].error)
    assert found.best("evaluations") == found[STANDARD]
    assert "wrong*" in str(found)


def test_what_is_right_is_not_called_biased() -> None:
    names = ["score", "disarm", "local", "measure-valued", "rebar", "enumerate", "muprop"]
    found = scg.compare(layers(), names, **SHORT)
    assert [row.name for row in found.rows if not row.is_right] == []
    assert found.reference == "the exact gradient"
    exact = found["enumerate"]
    assert exact.variance == 0 and exact.bias < 1e-5
    best = found.best("evaluations")
    assert best is not None and best.variance > 0


def test_evaluations_are_those_of_all_nodes_and_replicates() -> None:
    policies: dict[str, scg.Estimator | str | dict[str, str]] = {
        "score": "score",
        "mixed": {"first": "local", "second": "disarm"},
        "three": scg.Score(baseline="leave-one-out"),
    }
    found = scg.compare(layers(), policies, samples={"three": 3}, **SHORT)
    assert {row.name: row.evaluations for row in found.rows} == {
        "score": 1,
        "mixed": 1 + 2 * 3 + 1,
        "three": 3,
        STANDARD: 2,
    }


def test_what_needs_replicates_has_two_and_what_is_refused_a_reason() -> None:
    found = scg.compare(coin(), ["double-cv", "lax", "arms", "reparam"], **SHORT)
    assert found["double-cv"].evaluations == 4
    assert set(found.refused) == {"lax", "reparam"}
    assert found.reasons() == "- lax, reparam: a Bernoulli has no differentiable map from noise to value"


def test_without_an_exact_gradient_means_are_held_against_a_long_run() -> None:
    """The mean of a step is Phi, so that its gradient is the density of the mean's distance."""
    g = scg.Graph("step")
    z = g.sample("z", Normal, g.param("mean", 0.2), 1.0)
    g.cost("cost", g.det("hit", lambda z: (z > 0).float(), z, differentiable=False))
    found = scg.compare(g, ["measure-valued", "score", "enumerate"], **SHORT)
    assert found.reference == "a run of 65,536 draws of the score function"
    assert found["measure-valued"].is_right and found["score"].is_right
    assert 0 < found["measure-valued"].error < 0.05
    assert set(found.refused) == {"enumerate"}


def test_training_lowers_the_variance() -> None:
    short, long = (scg.compare(coin(), ["muprop"], steps=n, draws=1024, repeats=1) for n in (0, 300))
    assert long["muprop"].variance < 0.1 * short["muprop"].variance


def test_graph_and_policies_are_left_as_they_were() -> None:
    g, net = layers(), nn.Linear(3, 1)
    held = (*g.parameters(), *net.parameters())
    before, state = [p.detach().clone() for p in held], torch.get_rng_state()
    policy = {"first": scg.RELAX(net=net, relaxed_cost=False), "second": "nvil"}
    assert scg.compare(g, {"both": policy}, **SHORT).refused == {}
    assert all(torch.equal(old, new) for old, new in zip(before, held, strict=True))
    assert all(p.grad is None for p in held)
    assert torch.equal(state, torch.get_rng_state())


def test_a_seed_decides_everything_but_time() -> None:
    one, two, other = (
        [row.variance for row in scg.compare(layers(), ["relax"], seed=seed, **SHORT).rows]
        for seed in (1, 1, 2)
    )
    assert one == two
    assert one != other


def test_without_a_gradient_there_is_nothing_to_compare() -> None:
    g = scg.Graph()
    g.sample("b", Bernoulli, logits=g.param("l", 0.0))
    with pytest.raises(scg.GraphError, match="without costs"):
        scg.compare(g, ["score"])
    g = coin()
    g["l"].value.requires_grad_(False)
    with pytest.raises(scg.GraphError, match="no parameter of the graph requires a gradient"):
        scg.compare(g, ["score"])


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(scg.PolicyError, match="there is no estimator 'magic'"):
        scg.compare(coin(), ["magic"])
    for option in ({"draws": 1}, {"steps": -1}, {"repeats": 0.5}):
        with pytest.raises(scg.GraphError, match=r"=.*: give a whole number, . or more"):
            scg.compare(coin(), ["score"], **option)
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.input("l", plates="batch"))
    g.cost("cost", lambda b, w: b * w, b, g.param("w", 1.0))
    with pytest.raises(scg.GraphError, match="'l'"):
        scg.compare(g, ["score"])


def test_inputs_are_those_of_the_graph() -> None:
    """The mean over a batch of w sigmoid(x): gradients of inputs that are given, and not of the example."""
    g = scg.Graph()
    x = g.input("x", torch.zeros(2), plates="batch")
    b = g.sample("b", Bernoulli, logits=g.det("l", lambda x, w: x * w, x, g.param("w", 1.0)))
    g.cost("cost", b)
    found = scg.compare(g, ["enumerate"], x=torch.full((3,), 200.0), **SHORT)
    assert found["enumerate"].variance == 0 and math.isnan(found["enumerate"].bias)
    assert scg.compare(g, ["enumerate"], x=torch.ones(3), **SHORT)["enumerate"].bias < 1e-5
