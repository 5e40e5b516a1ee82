"""Gumbel-Rao: the mean of straight-through Gumbel-softmax, over the noise that is left given the value."""

from __future__ import annotations

import pytest
import torch

import scg
from tests.estimators.relaxing import LOGITS, cubic, gradient, graph, midpoints, quadratic

LOGIT = torch.tensor(0.4).double()


def test_its_mean_is_that_of_straight_through_gumbel_softmax() -> None:
    """Integrated over the noise of a bit, and over what is left of it."""
    count, p = 4000, LOGIT.sigmoid()
    g = graph(cubic, "logits", LOGIT)
    plain = scg.compile(g, scg.StraightThrough(temperature=0.6), samples=count, allow_biased=True)
    rao = scg.compile(g, scg.GumbelRao(temperature=0.6, draws=1), samples=count, allow_biased=True)
    zero, one = torch.zeros(()).double(), torch.ones(()).double()
    found = wanted = zero
    for mass, low, high in ((1 - p, zero, 1 - p), (p, 1 - p, one)):
        wanted = wanted + mass * gradient(plain, z=midpoints(low, high))
        middle = ((low + high) / 2).expand(count)
        found = found + mass * gradient(rao, z=middle, z_1=midpoints(zero, one))
    assert torch.allclose(found, wanted, rtol=1e-4)
    assert (found - scg.exact_gradient(g)["theta"]).abs() > 1e-2


@pytest.mark.parametrize("draws", [4, 64])
def test_its_variance_is_lower_the_more_it_draws(draws: int) -> None:
    g = graph(quadratic, "logits", LOGITS)

    def deviation(estimator: scg.Estimator) -> float:
        program = scg.compile(g, estimator, allow_biased=True)
        several = []
        for seed in range(300):
            program.zero_grad()
            program(seed=seed).loss.backward()
            several.append(program.theta.grad.clone())
        return float(torch.stack(several).var(0).sum())

    fewer = scg.StraightThrough(temperature=0.3) if draws == 4 else scg.GumbelRao(temperature=0.3, draws=2)
    assert deviation(scg.GumbelRao(temperature=0.3, draws=draws)) < 0.8 * deviation(fewer)


def test_draws_are_there_without_gradients_too() -> None:
    program = scg.compile(graph(cubic, "logits", LOGIT), "gumbel-rao", allow_biased=True)
    with torch.no_grad():
        found = program(seed=1)
    assert torch.equal(found.samples["z"], program(seed=1).samples["z"])


@pytest.mark.parametrize("draws", [0, 1.5, True])
def test_draws_are_a_number(draws: object) -> None:
    with pytest.raises(scg.EstimatorError, match="draws is a number from 1 on"):
        scg.GumbelRao(draws=draws)  # type: ignore[arg-type]
