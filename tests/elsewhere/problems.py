"""Problems whose values are drawn elsewhere: an MDP that may end early, with its exact gradient.

Of two actions in the first state the second ends the episode. Records are padded with states that nobody saw
and actions that nobody drew.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal

DISCOUNT = 0.9
NOWHERE = 7.0
FIRST, SECOND = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0])


class Actions(nn.Module):
    """A policy of two actions, linear in the state."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[0.3, -0.5], [-0.6, 0.4]]))
            self.layer.bias.copy_(torch.tensor([0.1, -0.2]))

    def forward(self, state: Tensor) -> Categorical:
        return Categorical(logits=self.layer(state.to(self.layer.weight.dtype)), validate_args=False)


class Shifts(nn.Module):
    """A policy of real actions, its mean linear in the state."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.log_scale = nn.Parameter(torch.tensor(-0.2))
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[0.7, 0.2]]))
            self.layer.bias.copy_(torch.tensor([-0.3]))

    def forward(self, state: Tensor) -> Normal:
        mean = self.layer(state).squeeze(-1)
        return Normal(mean, self.log_scale.exp().expand_as(mean))


def flat(grads: object) -> Tensor:
    return torch.cat([grad.flatten() for grad in grads])  # type: ignore[attr-defined]


def exact_of_actions(policy: Actions) -> Tensor:
    """Return the gradient of the expected cost, by enumeration."""
    first, second = policy(FIRST).probs, policy(SECOND).probs
    value = first[1] * 0.7 + first[0] * (0.2 + DISCOUNT * (second[0] * -0.5 + second[1] * 1.5))
    return flat(torch.autograd.grad(-value, list(policy.parameters())))


def play(policy: Actions, count: int, nowhere: float = NOWHERE) -> dict[str, Tensor]:
    """Draw episodes; with another policy, those are what it would do."""
    one = policy(FIRST.expand(count, 2)).sample()
    other = policy(SECOND.expand(count, 2)).sample()
    return actions_of(policy, one, other, nowhere)


def actions_of(policy: Actions, one: Tensor, other: Tensor, nowhere: float = NOWHERE) -> dict[str, Tensor]:
    """Return the record of episodes with these actions."""
    count, ended = len(one), one == 1
    unseen = torch.full((count, 2), nowhere)
    states = torch.stack((FIRST.expand(count, 2), torch.where(ended[:, None], unseen, SECOND)), 1)
    actions = torch.stack((one, torch.where(ended, 0, other)), 1)
    reward = torch.where(other == 1, 1.5, -0.5)
    rewards = torch.stack((torch.where(ended, 0.7, 0.2), torch.where(ended, 0.0, reward)), 1)
    mask = torch.stack((torch.ones_like(ended), ~ended), 1)
    with torch.no_grad():
        log_prob = policy(states.nan_to_num(0, 0, 0)).log_prob(actions)
    return {"state": states, "action": actions, "reward": rewards, "mask": mask, "log_prob": log_prob}


def first_state(action: Tensor) -> Tensor:
    return torch.stack((torch.zeros_like(action), torch.ones_like(action)), -1)


def second_state(action: Tensor) -> Tensor:
    return torch.stack((action.tanh(), torch.ones_like(action)), -1)


def exact_of_shifts(policy: Shifts) -> Tensor:
    """Return the gradient of the expected cost, by quadrature."""
    grid = torch.linspace(-9, 9, 200_001)
    law, after = policy(first_state(grid)), policy(second_state(grid))
    later = -0.2 * ((after.mean - grid) ** 2 + after.variance)
    reward = torch.where(grid > 0.5, torch.tensor(0.7), 0.3 * grid + DISCOUNT * later)
    value = torch.trapezoid(law.log_prob(grid).exp() * reward, grid)
    return flat(torch.autograd.grad(-value, list(policy.parameters())))


def shift(policy: Shifts, count: int) -> dict[str, Tensor]:
    """Draw episodes of real actions, the first of which ends the episode above a half."""
    one = policy(first_state(torch.zeros(count))).sample()
    ended, other = one > 0.5, policy(second_state(one)).sample()
    states = torch.stack(
        (first_state(one), torch.where(ended[:, None], torch.full((count, 2), NOWHERE), second_state(one))), 1
    )
    rewards = torch.stack(
        (torch.where(ended, 0.7, 0.3 * one), torch.where(ended, 0.0, -0.2 * (other - one) ** 2)), 1
    )
    actions = torch.stack((one, torch.where(ended, 0.0, other)), 1)
    return {
        "state": states,
        "action": actions,
        "reward": rewards,
        "mask": torch.stack((torch.ones_like(ended), ~ended), 1),
    }
