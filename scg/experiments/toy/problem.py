"""The toy problem as a graph: minimise E (b - t)^2, b ~ Bernoulli(sigmoid(l)), for many seeds at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli

import scg
from scg.noise import substream, uniform
from scg.runs import named_nearest

HIDDEN, TEMPERATURE = 10, 0.5


def toy_graph(t: float, seeds: int) -> scg.Graph:
    """Declare the toy problem for independent draws and seeds, each with its own logit.

    Both plates add up, so that the gradient of every element is its own, whatever the number of others.
    """
    g = scg.Graph("toy")
    for plate in ("draw", "seed"):
        g.plate(plate, reduce="sum")
    logits = g.input("logits", plates=("draw", "seed"), example=torch.zeros(2, seeds))
    b = g.sample("b", Bernoulli, logits=logits)
    g.cost("loss", (b - t) ** 2)
    return g


def expected_loss(logits: Tensor, t: float) -> Tensor:
    """Return E (b - t)^2 = p (1 - t)^2 + (1 - p) t^2.

    >>> float(expected_loss(torch.zeros(()), 0.5))
    0.25
    """
    return torch.sigmoid(logits) * (1 - t) ** 2 + torch.sigmoid(-logits) * t**2


def least_loss(t: float) -> float:
    """Return the least expected loss there is, that of the better side."""
    return min(t**2, (1 - t) ** 2)


class SeedNetworks(nn.Module):
    """A network for each seed: 1 -> 10 tanh -> 1 of 2 sigmoid(z / 0.5) - 1, times a scale that starts at 0.

    Its weights start as those of ``nn.Linear``, uniform within 1 / sqrt(inputs).
    """

    def __init__(self, seeds: int, seed: int) -> None:
        """Draw the weights of every seed, which do not depend on how many others there are."""
        super().__init__()
        noise = 2 * uniform(substream(seed, "networks"), seeds * (3 * HIDDEN + 1)) - 1
        parts = noise.float().view(seeds, -1).split((HIDDEN, HIDDEN, HIDDEN, 1), dim=1)
        self.slope, self.shift = nn.Parameter(parts[0]), nn.Parameter(parts[1])
        self.out = nn.Parameter(parts[2] / math.sqrt(HIDDEN))
        self.level = nn.Parameter(parts[3].squeeze(1) / math.sqrt(HIDDEN))
        self.scale = nn.Parameter(torch.zeros(seeds))

    def forward(self, z: Tensor) -> Tensor:
        """Return one number for each of [..., seeds]."""
        squashed = 2 * torch.sigmoid(z / TEMPERATURE) - 1
        hidden = torch.tanh(squashed.unsqueeze(-1) * self.slope + self.shift)
        return self.scale * ((hidden * self.out).sum(-1) + self.level)


def _exact(seeds: int, seed: int) -> scg.Estimator:
    return scg.Enumerate()


def _score(seeds: int, seed: int) -> scg.Estimator:
    return scg.Score()


def _rebar(seeds: int, seed: int) -> scg.Estimator:
    return scg.REBAR(temperature=torch.full((seeds,), TEMPERATURE), eta=torch.ones(seeds))


def _relax(seeds: int, seed: int) -> scg.Estimator:
    return scg.RELAX(net=SeedNetworks(seeds, seed), relaxed_cost=False)


POLICIES: dict[str, Callable[[int, int], scg.Estimator]] = {
    "exact": _exact,
    "score": _score,
    "rebar": _rebar,
    "relax": _relax,
}
"""The policies of the papers, in which every seed has control parameters of its own."""


def estimator(policy: str, seeds: int, seed: int) -> scg.Estimator | str:
    """Return the estimator of a policy; one that the papers do not have is as its name makes it."""
    if policy in POLICIES:
        return POLICIES[policy](seeds, seed)
    names = scg.estimator_names()
    if policy not in names:
        raise scg.PolicyError(named_nearest("policy", policy, dict.fromkeys([*POLICIES, *names])))
    return policy
