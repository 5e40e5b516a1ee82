"""What the oracle cannot do, it refuses by name."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Bernoulli, Binomial, Categorical, Gamma, Normal

from scg.errors import GraphError
from scg.graph import Graph
from scg.oracle import exact_gradient, exact_objective


def test_infinite_law() -> None:
    g = Graph()
    g.cost("loss", g.sample("rain", Gamma, 2.0, 1.0))
    with pytest.raises(GraphError, match=r"'rain' .*test_refusals.*Gamma is neither finite nor Normal"):
        exact_objective(g)


def test_limit_says_how_many() -> None:
    g = Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", torch.zeros(30)))
    x = g.sample("x", Normal, 0.0, 1.0)
    g.cost("loss", lambda b, x: b.sum(-1) * x, b, x)
    with pytest.raises(GraphError, match=rf"'loss' needs {2**30 * 32} .*2\*\*30 for 'b' \* 32\*\*1 for 'x'"):
        exact_gradient(g)


def test_limit_of_a_size_beyond_words() -> None:
    g = Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", torch.zeros(50_000)))
    g.cost("loss", lambda b: b.sum(-1), b)
    with pytest.raises(GraphError, match=r"about 10\*\*15051 assignments"):
        exact_objective(g)


def test_limit_is_inclusive() -> None:
    g = Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", torch.zeros(3)))
    g.cost("loss", lambda b: b.sum(-1), b)
    assert exact_objective(g, limit=8).item() == pytest.approx(1.5)
    with pytest.raises(GraphError, match="limit=7"):
        exact_objective(g, limit=7)


def test_no_costs() -> None:
    with pytest.raises(GraphError, match="no costs"):
        exact_objective(Graph())


def test_missing_and_unknown_inputs() -> None:
    g = Graph()
    g.cost("loss", g.input("x"))
    with pytest.raises(GraphError, match="'x' is missing"):
        exact_objective(g)
    with pytest.raises(GraphError, match="unknown input 'y'"):
        exact_objective(g, x=torch.ones(()), y=torch.ones(()))


def test_cost_with_too_many_dimensions() -> None:
    g = Graph()
    g.cost("loss", g.sample("b", Bernoulli, logits=g.param("theta", torch.zeros(3))))
    with pytest.raises(GraphError, match=r"cost 'loss' .*\(3,\)"):
        exact_objective(g)


def test_parameters_outside_their_constraint() -> None:
    g = Graph()
    g.cost("loss", g.sample("b", Bernoulli, probs=g.param("p", 1.2)))
    with pytest.raises(GraphError, match=r"'b' .*probs must satisfy"):
        exact_objective(g)


def test_support_that_depends_on_values() -> None:
    g = Graph()
    b = g.sample("b", Bernoulli, probs=0.5)
    k = g.sample("k", lambda b: Binomial(1 + int(b), torch.tensor(0.5)), b)
    g.cost("loss", k)
    with pytest.raises(GraphError, match=r"'k' .*Binomial is neither finite nor Normal"):
        exact_objective(g)


def test_errors_of_functions_come_up() -> None:
    def fails(b: torch.Tensor) -> torch.Tensor:
        raise ValueError("no such thing")

    g = Graph()
    g.cost("loss", fails, g.sample("b", Bernoulli, probs=0.5))
    with pytest.raises(GraphError, match=r"'loss' .*ValueError: no such thing"):
        exact_objective(g)


def test_outcomes_that_one_case_alone_has_are_not_left_out() -> None:
    g = Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", 0.3))
    k = g.sample("k", lambda b: Categorical(probs=torch.ones(2 + int(b))), b)
    g.cost("loss", k.double())
    with pytest.raises(GraphError, match=r"sample 'k' .* has 2 outcomes in one case and 3 in another"):
        exact_gradient(g)
