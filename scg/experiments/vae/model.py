"""The model: an autoencoder with layers of discrete latents, of several runs at once, as a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, OneHotCategorical

import scg
from scg.experiments.stacked import network
from scg.runs import seed_of

EDGE = 0.001
"""Means of pixels are kept this far from 0 and 1."""


@dataclass(frozen=True)
class Spec:
    """``layers`` of ``count`` latents, coins or of ``outcomes`` each, and of ``hidden`` units in between."""

    layers: int
    count: int
    outcomes: int | None = None
    hidden: tuple[int, ...] = ()

    @property
    def event(self) -> tuple[int, ...]:
        """The shape of the logits of a layer."""
        return (self.count,) if self.outcomes is None else (self.count, self.outcomes)

    @property
    def width(self) -> int:
        """How many numbers a layer is."""
        return self.count * (self.outcomes or 1)

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes of the layers, the one next to the images first."""
        return tuple(f"b{layer + 1}" for layer in range(self.layers))


def latents(text: str) -> tuple[int, int | None]:
    """Read how many latents a layer has, and of how many outcomes each if they are no coins.

    >>> latents("200"), latents("20x10")
    ((200, None), (20, 10))
    """
    count, cross, outcomes = text.partition("x")
    is_number = count.isdecimal() and (outcomes.isdecimal() or not cross)
    if not is_number or int(count) < 1 or (cross and int(outcomes) < 2):
        raise ValueError(f"'{text}' is neither a number of coins, as 200, nor latents x outcomes, as 20x10")
    return int(count), int(outcomes) if cross else None


class Part(nn.Module):
    """A network of each run, [run, batch, ...] -> [run, batch, *event], of centred inputs."""

    shift: Tensor

    def __init__(
        self, widths: Sequence[int], event: tuple[int, ...], seeds: Sequence[int], *, shift: Tensor, rank: int
    ) -> None:
        """Take inputs whose event has a ``rank``, less a ``shift`` [width], or 2 b - 1 where that is 0."""
        super().__init__()
        self.net = network(widths, nn.Tanh, seeds, is_stacked=True)
        self.event, self.rank = event, rank
        self.register_buffer("shift", shift)

    def forward(self, value: Tensor) -> Tensor:
        """Return logits."""
        flat = value.flatten(-self.rank) if self.rank > 1 else value
        centred = flat - self.shift if self.shift.dim() else 2 * flat - 1
        found: Tensor = self.net(centred)
        return found.unflatten(-1, self.event) if len(self.event) > 1 else found


def declare(spec: Spec, mean: Tensor, seeds: Sequence[int], batch: int) -> scg.Graph:
    """Declare the autoencoder for runs with these seeds, each with its own weights and batch.

    Runs are a plate of sums, so that the gradient of each is its own. Images are less their ``mean``,
    [pixel], which also says where and in which type to compute, latents 2 b - 1, the prior is learned, and
    pixels begin with the odds of their mean.
    """
    g = scg.Graph("vae")
    g.plate("run", reduce="sum")
    g.plate("batch")
    x = g.input("x", plates=("run", "batch"), example=mean.new_zeros(len(seeds), batch, len(mean)))
    values: list[scg.Node] = []
    costs: list[Any] = []
    for layer, name in enumerate(spec.names):
        encoder = _encoder(spec, layer, mean, seeds).to(mean)
        logits = g.det(f"q{layer + 1}", encoder, values[-1] if values else x)
        law = Bernoulli if spec.outcomes is None else OneHotCategorical
        values.append(g.sample(name, law, logits=logits))
        costs.append(g.log_prob(values[-1]))
    prior = g.param("prior", mean.new_zeros(len(seeds), *spec.event), plates=("run",))
    costs.append(-g.log_prob(law, values[-1], logits=prior))
    for layer in reversed(range(1, spec.layers)):
        decoder = _decoder(spec, layer, spec.width, spec.event, seeds).to(mean)
        below = g.det(f"p{layer}", decoder, values[layer])
        costs.append(-g.log_prob(law, values[layer - 1], logits=below))
    output = _decoder(spec, 0, len(mean), (len(mean),), seeds).to(mean)
    _begin_at(output, mean)
    costs.append(-g.log_prob(Bernoulli, x, logits=g.det("px", output, values[0])))
    g.cost("nelbo", sum(costs[1:], costs[0]))
    return g


def _encoder(spec: Spec, layer: int, mean: Tensor, seeds: Sequence[int]) -> Part:
    wide = spec.width if layer else len(mean)
    own = [seed_of(seed, "encoder", layer) for seed in seeds]
    shift, rank = (torch.zeros(()), len(spec.event)) if layer else (mean, 1)
    return Part((wide, *spec.hidden, spec.width), spec.event, own, shift=shift, rank=rank)


def _decoder(spec: Spec, layer: int, wide: int, event: tuple[int, ...], seeds: Sequence[int]) -> Part:
    own = [seed_of(seed, "decoder", layer) for seed in seeds]
    widths = (spec.width, *reversed(spec.hidden), wide)
    return Part(widths, event, own, shift=torch.zeros(()), rank=len(spec.event))


def _begin_at(output: Part, mean: Tensor) -> None:
    """Have pixels begin with the odds of their mean."""
    last = [parameter for name, parameter in output.net.named_parameters() if name.startswith("bias")][-1]
    with torch.no_grad():
        last.copy_(mean.clamp(EDGE, 1 - EDGE).logit().expand_as(last))
