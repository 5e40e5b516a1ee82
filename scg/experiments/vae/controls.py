"""Controls: networks that estimators learn, one for each run, of what they may read of images and latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from scg.experiments.stacked import Stacked, layers
from scg.runs import seed_of

SMALL, WIDE = 64, 200
"""Units of a hidden layer: so many for small images, and as in the papers for larger ones."""


class Input(NamedTuple):
    """What a network reads: logits as they are, images less their mean, or latents as 2 b - 1."""

    kind: Literal["logits", "image", "latents"]
    event: tuple[int, ...]


class Reading(nn.Module):
    """A network of each run with two hidden layers, times a scale that starts at 0.

    It reads several inputs [..., run, batch, *event]. What the first layer makes of each is added, so that
    they need not be of one size.
    """

    mean: Tensor

    def __init__(
        self, inputs: Sequence[Input], mean: Tensor, seeds: Sequence[int], activation: type[nn.Module]
    ) -> None:
        """Make networks under ``seeds``; images have a ``mean`` [pixel]."""
        super().__init__()
        widths = [math.prod(one.event) for one in inputs]
        wide = WIDE if len(mean) > WIDE else SMALL
        own = [seed_of(seed, "control", [one.kind for one in inputs]) for seed in seeds]
        every = [[*layers((sum(widths), wide, wide, 1), activation, seed)] for seed in own]
        firsts = [next(part for part in one if isinstance(part, nn.Linear)) for one in every]
        weight = torch.stack([first.weight.detach().T for first in firsts])
        self.inputs = tuple(inputs)
        self.weights = nn.ParameterList(nn.Parameter(part.clone()) for part in weight.split(widths, 1))
        self.bias = nn.Parameter(torch.stack([first.bias.detach()[None] for first in firsts]))
        self.activation = activation()
        self.rest = Stacked([nn.Sequential(*one[2:]) for one in every], activation)
        self.scale = nn.Parameter(torch.zeros(len(seeds), 1))
        self.register_buffer("mean", mean.clone())

    def forward(self, *given: Tensor) -> Tensor:
        """Return one number for each run and image."""
        hidden: Tensor = self.bias
        for value, one, weight in zip(given, self.inputs, self.weights, strict=True):
            flat = value.flatten(-len(one.event)) if len(one.event) > 1 else value
            if one.kind != "logits":
                flat = flat - self.mean if one.kind == "image" else 2 * flat - 1
            hidden = hidden + flat @ weight
        found: Tensor = self.rest(self.activation(hidden))
        return found.squeeze(-1) * self.scale
