"""DisARM at one bit, integrated over its noise: the cells between thresholds, each with its width."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli

import scg
from tests.estimators.building import of, site


def cost(b: Tensor) -> Tensor:
    return (b - 0.3) ** 3


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("given", ["logits", "probs"])
def test_its_mean_is_the_gradient(given: str, p: float) -> None:
    start = torch.tensor(p if given == "probs" else math.log(p / (1 - p)), dtype=torch.double)
    edges = sorted({0.0, p, 1 - p, 1.0})
    total = torch.zeros((), dtype=torch.double)
    for low, high in itertools.pairwise(edges):
        noise = torch.tensor((low + high) / 2, dtype=torch.double)
        found = scg.DisARM().gradient(site(Bernoulli, {given: start}, noise, cost))
        total += (high - low) * found[given]
    zero, one = cost(of(0.0, 1.0))
    slope = 1.0 if given == "probs" else p * (1 - p)
    assert torch.allclose(total, slope * (one - zero), rtol=1e-12)
