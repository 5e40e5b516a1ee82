"""MuProp, integrated over the cells of its noise: exact at any coefficient and slope."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributions import Bernoulli

import scg
from scg.errors import EstimatorError
from scg.proving.prove import prove
from tests.contract.judge import gap
from tests.estimators.building import of
from tests.estimators.test_double_cv import GRAPHS, bits, moved, rough
from tests.support.integrate import integrated_gradient
from tests.support.running import gradients

SEVERAL = [scg.MuProp(coefficient=0.6), scg.MuProp(slope="learned")]


@pytest.mark.parametrize("estimator", SEVERAL, ids=["mean-field", "learned"])
@pytest.mark.parametrize("name", GRAPHS)
def test_its_mean_is_the_gradient(name: str, estimator: scg.Estimator) -> None:
    g = GRAPHS[name]()
    found = integrated_gradient(g, moved(scg.compile(g, estimator)))
    assert gap(found, scg.exact_gradient(g)) < 1e-12


def test_it_takes_a_baseline_besides() -> None:
    g = bits()
    program = scg.compile(g, scg.MuProp(baseline="leave-one-out"), samples=2)
    assert gap(integrated_gradient(g, program, samples=2), scg.exact_gradient(g)) < 1e-12


def test_a_linear_cost_leaves_no_variance() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", of(0.4, -0.9)))
    g.cost("c", lambda b: (b * of(1.0, -0.7)).sum(-1), b)
    program = scg.compile(g, "muprop")
    for seed in range(4):
        assert gap({"theta": gradients(program, seed=seed)["theta"]}, scg.exact_gradient(g)) < 1e-12


def test_coefficients_descend_the_variance() -> None:
    """Where the slope at the mean has little to do with the cost, less of it is better."""
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", of(0.8, -0.5)))
    g.cost("c", lambda b: ((b - 0.5) ** 2 + b * of(0.3, 1.0) + torch.sin(6.283185307179586 * b)).sum(-1), b)
    program = scg.compile(g, "muprop")

    def spread() -> float:
        draws = torch.stack([gradients(program, seed=seed)["theta"] for seed in range(1000, 1200)])
        return float(draws.var(0).sum())

    before = spread()
    optimizer = torch.optim.Adam(program.control_parameters(), lr=0.03)
    for seed in range(300):
        gradients(program, seed=seed)
        optimizer.step()
    assert spread() < 0.5 * before
    fixed = scg.compile(g, scg.MuProp(tune=False))
    assert not list(fixed.control_parameters())


def test_it_is_proved_at_a_bit() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", of(0.4)[0]))
    g.cost("c", lambda b: (b - 0.3) ** 3, b)
    proof = prove(scg.compile(g, scg.MuProp(tune=False)))
    assert proof.standing == "proved", proof


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: scg.MuProp(slope="cost"), "slope is one of"),  # type: ignore[arg-type]
        (lambda: scg.MuProp(coefficient=True), "coefficient is a number"),
        (lambda: scg.MuProp(baseline="moving-average"), "learns already"),
        (lambda: scg.compile(rough(), "muprop"), 'give slope="learned"'),
    ],
)
def test_what_it_cannot_do_is_refused(make: Any, told: str) -> None:
    with pytest.raises(EstimatorError, match=told):
        make()
