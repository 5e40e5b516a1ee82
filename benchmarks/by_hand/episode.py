"""REINFORCE on one recorded episode by hand: credit to go, and a value that descends the variance."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

STATE, ACTIONS, HIDDEN, DISCOUNT = 4, 2, 10, 0.99

Record = dict[str, Tensor]


def layers(inner: int, outer: int) -> nn.Sequential:
    """Two hidden layers of ten."""
    return nn.Sequential(
        nn.Linear(inner, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outer)
    )


class Policy(nn.Module):
    """A law of two actions."""

    def __init__(self) -> None:
        """Start at random."""
        super().__init__()
        self.layers = layers(STATE, ACTIONS)

    def forward(self, state: Tensor) -> Categorical:
        """Return the law in a state."""
        return Categorical(logits=self.layers(state))


class Model(nn.Module):
    """A policy, and the value of a state."""

    def __init__(self) -> None:
        """Start at random."""
        super().__init__()
        self.policy = Policy()
        self.value = layers(STATE, 1)


def record(steps: int) -> Record:
    """Make up an episode of CartPole: its reward is 1 at every step."""
    generator = torch.Generator().manual_seed(0)
    return {
        "state": torch.randn(1, steps, STATE, generator=generator),
        "action": torch.randint(0, ACTIONS, (1, steps), generator=generator),
        "reward": torch.ones(1, steps),
        "mask": torch.ones(1, steps, dtype=torch.bool),
    }


def score(model: Model, seen: Record) -> Tensor:
    """The loss whose derivative is that of the discounted reward."""
    law = model.policy(seen["state"])
    return (to_go(seen) * log_prob(law, seen)).sum(1).mean()


def score_with_value(model: Model, seen: Record) -> Tensor:
    """The same less the value of the state, and the variance of what each step leaves in the logits."""
    law = model.policy(seen["state"])
    weight = DISCOUNT ** torch.arange(seen["reward"].shape[1])
    left = to_go(seen) / weight - model.value(seen["state"]).squeeze(-1)
    square = one_hot_less(law, seen).square().sum(-1)
    variance = seen["mask"] * weight * square.detach() * left.square()
    return (weight * left.detach() * log_prob(law, seen)).sum(1).mean() + variance.sum(1).mean()


def to_go(seen: Record) -> Tensor:
    """The cost from each step on, discounted from the start."""
    size = seen["reward"].shape[1]
    cost = -(DISCOUNT ** torch.arange(size)) * seen["reward"] * seen["mask"]
    return cost.flip(1).cumsum(1).flip(1)


def log_prob(law: Categorical, seen: Record) -> Tensor:
    """The log-probability of what was done."""
    return law.log_prob(seen["action"]) * seen["mask"]


def one_hot_less(law: Categorical, seen: Record) -> Tensor:
    """The score in the logits."""
    return nn.functional.one_hot(seen["action"], ACTIONS) - law.probs
