"""Networks of policies and controls, of one run or of several stacked."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal


class Choosing(nn.Module):
    """A policy of discrete actions."""

    def __init__(self, net: nn.Module) -> None:
        """Take logits from a network of the state."""
        super().__init__()
        self.net = net

    def forward(self, state: Tensor) -> Categorical:
        """Return the law of the action."""
        return Categorical(logits=self.net(state), validate_args=False)


class Steering(nn.Module):
    """A policy of real actions, whose scale does not depend on the state."""

    def __init__(self, net: nn.Module, actions: int) -> None:
        """Take means from a network of the state."""
        super().__init__()
        self.net = net
        self.log_scale = nn.Parameter(torch.zeros(actions))

    def forward(self, state: Tensor) -> Normal:
        """Return the law of the action."""
        mean = self.net(state)
        return Normal(mean, self.log_scale.exp().expand_as(mean), validate_args=False)


class OfState(nn.Module):
    """A baseline: one number for each state."""

    def __init__(self, net: nn.Module, scale: float) -> None:
        """Multiply what a network returns by a scale."""
        super().__init__()
        self.net = net
        self.scale = scale

    def forward(self, state: Tensor) -> Tensor:
        """Return the baseline."""
        found: Tensor = self.net(state)
        return found.squeeze(-1) * self.scale


class OfAction(OfState):
    """A control variate: one number for each action and state; logits count by their softmax."""

    def __init__(self, net: nn.Module, scale: float, *, discrete: bool) -> None:
        """Take actions as they are, or as perturbed logits."""
        super().__init__(net, scale)
        self.discrete = discrete

    def forward(self, action: Tensor, state: Tensor) -> Tensor:  # type: ignore[override]
        """Return the control variate; states have fewer leading dimensions than actions, or of size 1."""
        action = 2 * action.softmax(-1) - 1 if self.discrete else action
        lead = action.shape[:-1]
        return super().forward(torch.cat((action, state.expand(*lead, state.shape[-1])), -1))
