"""Every episode of the MDP of two steps, each by its probability: a mean without sampling."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

import scg
from tests.elsewhere import problems
from tests.elsewhere.problems import Actions, flat

DISCOUNT = problems.DISCOUNT
FIRSTS, SECONDS = torch.tensor([1, 0, 0]), torch.tensor([0, 0, 1])
"""The three episodes there are: one ends at once."""


class Value(nn.Module):
    """A prediction from a state, which is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.4, -0.9], dtype=torch.float64))

    def forward(self, state: Tensor) -> Tensor:
        return torch.tanh(state.to(self.weight.dtype) @ self.weight) + 0.3


def policy_of(shift: float = 0.0) -> Actions:
    """A policy, or one whose probabilities are others."""
    made = Actions().double()
    with torch.no_grad():
        made.layer.weight += shift * torch.tensor([[1.0, -0.5], [-1.0, 0.5]])
        made.layer.bias += shift
        made.layer.bias[0] += shift
    return made


def graph(policy: Actions, record: dict[str, Tensor], *plates: str, behaviour: bool = False) -> scg.Graph:
    """The MDP with a record of its episodes, and plates before that of time."""
    g = scg.Graph("mdp")
    for plate in plates:
        g.plate(plate)
    g.plate("time", ordered=True, discount=DISCOUNT, reduce="sum")
    options: dict[str, Any] = {"behaviour": "log_prob"} if behaviour else {}
    example = {key: value for key, value in record.items() if behaviour or key != "log_prob"}
    ep = g.rollout("ep", lambda policy: record, policy, plates=(*plates, "time"), example=example, **options)
    g.cost("loss", -ep["reward"])
    return g


def gradient(program: scg.Program, policy: Actions, record: dict[str, Tensor], **options: Any) -> Tensor:
    """Return what one run on a record leaves in the policy."""
    policy.zero_grad()
    program.zero_grad()
    program(noise=record, **options).loss.backward()
    return flat([parameter.grad for parameter in policy.parameters()]).clone()


def mean(estimator: scg.Estimator, *, other: Actions | None = None) -> Tensor:
    """Return the mean estimate over episodes, each drawn by itself, by another policy if there is one."""
    policy = policy_of()
    record = problems.actions_of(other or policy, FIRSTS, SECONDS)
    likelihood = (record["log_prob"] * record["mask"]).sum(1).exp()
    made = graph(policy, record, "episode", behaviour=other is not None)
    return weighed(made, policy, estimator, record, likelihood)


def weighed(
    g: scg.Graph, policy: Actions, estimator: scg.Estimator, record: dict[str, Tensor], likelihood: Tensor
) -> Tensor:
    """Return the sum over the rows of a record, each by its probability."""
    program = scg.compile(g, {"ep": estimator}, allow_biased=True)
    total = torch.zeros(6, dtype=torch.float64)
    for index, probability in enumerate(likelihood):
        one = {key: value[index : index + 1] for key, value in record.items()}
        total += probability * gradient(program, policy, one)
    return total


def mean_of_groups(estimator: scg.Estimator, size: int, *, other: Actions | None = None) -> Tensor:
    """Return the mean over groups of episodes, as completions of one prompt."""
    policy = policy_of()
    several = torch.tensor(list(itertools.product(range(3), repeat=size)))
    flat_record = problems.actions_of(other or policy, FIRSTS[several].flatten(), SECONDS[several].flatten())
    record = {key: value.unflatten(0, several.shape) for key, value in flat_record.items()}
    likelihood = (record["log_prob"] * record["mask"]).sum((1, 2)).exp()
    made = graph(policy, record, "prompt", "completion", behaviour=other is not None)
    return weighed(made, policy, estimator, record, likelihood)


def by_hand(policy: Actions, record: dict[str, Tensor], factor: Tensor, dims: int = 1) -> Tensor:
    """Return the gradient of sum over existing steps of discount**t factor log p, the mean over the rest."""
    log_prob = policy(record["state"].nan_to_num()).log_prob(record["action"])
    weighed = DISCOUNT ** torch.arange(2) * factor.detach() * log_prob
    surrogate = torch.where(record["mask"], weighed, 0).sum(-1).mean()
    return flat(torch.autograd.grad(surrogate, list(policy.parameters())))


def to_go(record: dict[str, Tensor]) -> Tensor:
    """Return the credit of each step, by the formula."""
    cost = torch.where(record["mask"], -record["reward"].nan_to_num(), 0)
    return torch.stack((cost[..., 0] + DISCOUNT * cost[..., 1], cost[..., 1]), -1)


def ratios(policy: Actions, record: dict[str, Tensor]) -> Tensor:
    """Return p / q of each step."""
    log_prob = policy(record["state"]).log_prob(record["action"])
    return torch.where(record["mask"], log_prob - record["log_prob"], 0).exp().detach()
