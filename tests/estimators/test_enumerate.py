"""Enumeration: every joint outcome, and beside it its own probability."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution

import scg
from scg.estimators.protocol.site import Apart
from tests.estimators.building import of, site

ROWS = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], dtype=torch.double)


def branches(
    dist: type[Distribution], probs: Tensor, plates: tuple[int, ...], event: tuple[int, ...]
) -> scg.Branches:
    noise = torch.full_like(probs, 0.5)
    made = site(dist, {"probs": probs}, noise, lambda b: b.double(), apart=Apart(plates, event))
    return scg.Enumerate().branches(made)


def chances(dist: type[Distribution], probs: Tensor, outcomes: Tensor) -> Tensor:
    """The probability of each outcome, by the distribution itself, multiplied over all elements."""
    return dist(probs=probs).log_prob(outcomes).exp().flatten(1).prod(1)


@pytest.mark.parametrize("plates, event", [((), (2,)), ((2,), ())])
@pytest.mark.parametrize("dist, probs", [(Bernoulli, of(0.2, 0.7)), (Categorical, ROWS)])
def test_every_outcome_has_its_own_probability(
    dist: type[Distribution], probs: Tensor, plates: tuple[int, ...], event: tuple[int, ...]
) -> None:
    found = branches(dist, probs, plates, event)
    count = 2**2 if dist is Bernoulli else 3**2
    assert found.outcomes.shape == (count, 2)
    assert len(found.outcomes.unique(dim=0)) == count
    assert torch.allclose(found.masses.flatten(), chances(dist, probs, found.outcomes))


def test_elements_of_a_plate_and_of_an_event_are_set_one_by_one() -> None:
    probs = torch.tensor([[0.2, 0.7], [0.4, 0.9]], dtype=torch.double)
    found = branches(Bernoulli, probs, (2,), (2,))
    assert found.outcomes.shape == (2**4, 2, 2)
    assert torch.allclose(found.masses.flatten(), chances(Bernoulli, probs, found.outcomes))


def test_plates_that_no_cost_joins_are_set_at_once() -> None:
    probs = torch.tensor([[0.2, 0.7], [0.4, 0.9]], dtype=torch.double)
    found = branches(Bernoulli, probs, (1,), (2,))
    assert found.outcomes.shape == (2**2, 1, 2)
    for element, row in enumerate(probs):
        assert torch.allclose(found.masses[:, element], chances(Bernoulli, row, found.outcomes[:, 0]))
