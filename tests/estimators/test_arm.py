"""ARM at bits: by hand, over the cells of its noise, and beside coupled evaluations."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Bernoulli, Categorical

import scg
from scg.errors import EstimatorError
from tests.estimators.building import of, site
from tests.estimators.test_coupled import cells, cost, given_as


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("given", ["logits", "probs"])
def test_its_mean_is_the_gradient(given: str, p: float) -> None:
    start, total, square, less = given_as(given, p), 0.0, 0.0, 0.0
    rate = 1.0 if given == "logits" else p * (1 - p)
    for length, middle in cells({p, 1 - p}):
        for place in (middle - length / 2 * 3**-0.5, middle + length / 2 * 3**-0.5):
            made = site(Bernoulli, {given: start}, place, cost)
            found, coupled = (e.gradient(made)[given] for e in (scg.ARM(), scg.Coupled()))
            b, other = (of(float(u > 1 - p)) for u in (place, 1 - place))
            assert torch.allclose(found * rate, (cost(b) - cost(other)) * (place - 0.5), rtol=1e-12)
            total += length / 2 * float(found)
            square += length / 2 * float(found) ** 2
            less += length / 2 * float(coupled) ** 2
    zero, one = cost(of(0.0, 1.0))
    slope = 1.0 if given == "probs" else p * (1 - p)
    assert total == pytest.approx(float(slope * (one - zero)), rel=1e-12)
    assert less < square


def test_what_is_no_bit_is_refused() -> None:
    g = scg.Graph()
    k = g.sample("k", Categorical, logits=g.param("theta", of(0.1, 0.2, 0.3)))
    g.cost("c", lambda k: of(0.4, 0.1, 0.3)[k], k)
    with pytest.raises(EstimatorError, match='not drawn from one uniform number. Use "'):
        scg.compile(g, "arm")
