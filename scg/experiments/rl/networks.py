"""Networks of policies and controls: those of several runs stacked, each with weights under its own seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal

Activation = Callable[[], nn.Module]


def layers(widths: Sequence[int], activation: Activation, seed: int) -> nn.Sequential:
    """Return fully connected layers, initialised as ``nn.Linear`` is under a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        linear = [nn.Linear(*pair) for pair in pairwise(widths)]
    between = [part for layer in linear for part in (layer, activation())]
    return nn.Sequential(*between[:-1])


class Stacked(nn.Module):
    """The same layers for several runs, [..., run, time, in] -> [..., run, time, out].

    What has two dimensions is [run, in]: one step, without a dimension for it.
    """

    def __init__(self, several: Sequence[nn.Sequential], activation: Activation) -> None:
        """Stack the weights of each run's own layers."""
        super().__init__()
        self.activation = activation()
        linear = [[part for part in one if isinstance(part, nn.Linear)] for one in several]
        self.depth = len(linear[0])
        for index, level in enumerate(zip(*linear, strict=True)):
            weight = torch.stack([layer.weight.detach().T for layer in level])
            bias = torch.stack([layer.bias.detach()[None] for layer in level])
            self.register_parameter(f"weight{index}", nn.Parameter(weight))
            self.register_parameter(f"bias{index}", nn.Parameter(bias))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of every run."""
        found = x.unsqueeze(1) if x.dim() == 2 else x
        for index in range(self.depth):
            weight, bias = getattr(self, f"weight{index}"), getattr(self, f"bias{index}")
            found = found if not index else self.activation(found)
            found = torch.baddbmm(bias, found, weight) if found.dim() == 3 else found @ weight + bias
        return found.squeeze(1) if x.dim() == 2 else found


def network(widths: Sequence[int], activation: Activation, seeds: Sequence[int]) -> nn.Module:
    """Return the layers of one run, or those of several stacked."""
    several = [layers(widths, activation, seed) for seed in seeds]
    return several[0] if len(several) == 1 else Stacked(several, activation)


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
