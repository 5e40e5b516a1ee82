"""Stacked networks: those of several runs in one, each with weights under its own seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

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


def network(
    widths: Sequence[int], activation: Activation, seeds: Sequence[int], *, is_stacked: bool = False
) -> nn.Module:
    """Return the layers of one run, or those of several stacked; also those of one if that is asked for."""
    several = [layers(widths, activation, seed) for seed in seeds]
    return several[0] if len(several) == 1 and not is_stacked else Stacked(several, activation)
