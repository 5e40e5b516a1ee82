"""Local enumeration: one element at a time, the others where they were drawn."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.distributions import Bernoulli

import scg
from tests.estimators.building import of, site


def cost(b: Tensor) -> Tensor:
    """Bits that need each other, so that a value of one matters to the other."""
    return (b[..., 0] + 2 * b[..., 1] - 0.7) ** 3


def test_its_mean_is_the_gradient() -> None:
    probs, total = of(0.2, 0.7), torch.zeros(2, dtype=torch.double)
    live = probs.clone().requires_grad_()
    objective = torch.zeros((), dtype=torch.double)
    for bits in itertools.product((0.0, 1.0), repeat=2):
        b = of(*bits)
        noise = torch.where(b == 1, 1 - probs / 2, (1 - probs) / 2)
        found = scg.Enumerate(local=True).gradient(site(Bernoulli, {"probs": probs}, noise, cost))
        total += (b * probs + (1 - b) * (1 - probs)).prod() * found["probs"]
        objective = objective + (b * live + (1 - b) * (1 - live)).prod() * cost(b)
    (wanted,) = torch.autograd.grad(objective, live)
    assert torch.allclose(total, wanted, rtol=1e-12)


def test_an_infinite_cost_of_what_cannot_happen_counts_for_nothing() -> None:
    def infinite(b: Tensor) -> Tensor:
        return cost(b) - torch.log(b[..., 0])

    made = site(Bernoulli, {"logits": of(1e4, 0.4)}, of(0.5, 0.5), infinite)
    found = scg.Enumerate(local=True).gradient(made)["logits"]
    zero, one = cost(of(1.0, 0.0)), cost(of(1.0, 1.0))
    p = torch.sigmoid(of(0.4))
    assert torch.allclose(found, torch.cat([of(0.0), p * (1 - p) * (one - zero)]))


def test_an_infinite_cost_of_what_can_happen_is_infinite() -> None:
    made = site(Bernoulli, {"probs": of(0.9, 0.4)}, of(0.5, 0.5), lambda b: 1 / b[..., 0])
    assert not scg.Enumerate(local=True).gradient(made)["probs"].isfinite().all()
