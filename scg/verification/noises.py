"""Noises: the base noise of many runs at once, drawn so that rare outcomes and tails are met more often."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scg.coupling import Coupling, joint, paired
from scg.noise import NoiseSpec

WIDE = 16.0
"""How far out, as a logit, a uniform number is sought."""
SPREAD = 3.0
"""The standard deviation of a normal number that is sought far out."""


@dataclass(frozen=True)
class Tilted:
    """Noise of runs [n, ...] by node, and the weight of each run: its density over that it was drawn from."""

    noise: dict[str, Tensor]
    weights: Tensor


def plain(specs: Mapping[str, NoiseSpec], count: int, generator: torch.Generator) -> Tilted:
    """Draw the noise of runs as it is, each with the weight 1."""
    noise = {name: _drawn(spec, count, generator) for name, spec in specs.items()}
    return Tilted(noise, torch.ones(count, dtype=torch.float64))


def tilted(specs: Mapping[str, NoiseSpec], count: int, generator: torch.Generator) -> Tilted:
    """Draw the noise of runs, in half of which one number of all is drawn far out.

    The density that runs are drawn from is (1 + mean_j beta(u_j)) / 2 times their own, so that weights are
    at most 2 and means are unbiased: a defensive mixture (Hesterberg, 1995).
    """
    near = plain(specs, count, generator)
    flat = {name: value.reshape(count, -1) for name, value in near.noise.items()}
    total = sum(value.shape[1] for value in flat.values())
    if not total:
        return near
    far = torch.rand(count, generator=generator) < 0.5
    chosen = torch.randint(total, (count,), generator=generator)
    ratio, start = torch.zeros(count, dtype=torch.float64), 0
    for name, value in flat.items():
        size = value.shape[1]
        rows = (far & (chosen >= start) & (chosen < start + size)).nonzero().squeeze(-1)
        value[rows, chosen[rows] - start] = _far(specs[name], len(rows), generator)
        ratio += _ratio(specs[name], value.double()).sum(1)
        start += size
    noise = {name: value.view(near.noise[name].shape) for name, value in flat.items()}
    return Tilted(noise, 2 / (1 + ratio / total))


def free(specs: Mapping[str, NoiseSpec], coupling: Coupling | None) -> dict[str, NoiseSpec]:
    """Return what of the noise of a run is drawn by itself: of pairs the first half, of sequences nothing."""
    if coupling is None:
        return dict(specs)
    together = {own.name for sequence in coupling.sequences for own in sequence.specs}
    found = {name: spec for name, spec in specs.items() if name not in together}
    for name in coupling.pairs:
        count, *rest = specs[name].shape
        found[name] = replace(specs[name], shape=(count // 2, *rest))
    return found


def coupled(
    drawn: Mapping[str, Tensor],
    specs: Mapping[str, NoiseSpec],
    coupling: Coupling | None,
    count: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return all the noise of runs [n, ...], from what is drawn by itself."""
    found = dict(drawn)
    for name, spec in ({} if coupling is None else coupling.pairs).items():
        found[name] = paired(torch.cat((drawn[name], drawn[name]), 1), spec.kind, dim=1)
    for sequence in () if coupling is None else coupling.sequences:
        plates = specs[sequence.specs[0].name].shape[1 : 1 + len(sequence.plates)]
        size = sequence.numbers(count * math.prod(plates))
        random = torch.rand(size, dtype=torch.float64, generator=generator)
        several = joint(sequence, random, (count, *plates))
        found.update({name: value.movedim(1, 0) for name, value in several.items()})
    return found


def rarest(probability: float, total: int) -> float:
    """Return how often an outcome is met at least, by noise drawn here, that has a probability by itself.

    >>> rarest(0.001, 1) > 0.1
    True
    """
    distance = (
        max(WIDE - abs(math.log(probability) - math.log1p(-probability)), 0.0) if probability < 1 else 0
    )
    return probability / 2 + distance / (4 * WIDE * total)


def _drawn(spec: NoiseSpec, count: int, generator: torch.Generator) -> Tensor:
    shape = (count, *spec.shape)
    if spec.kind == "normal":
        return torch.randn(shape, dtype=spec.dtype, generator=generator)
    tiny = torch.finfo(spec.dtype).eps / 4
    return torch.rand(shape, dtype=spec.dtype, generator=generator).clamp_(tiny, 1 - 2 * tiny)


def _far(spec: NoiseSpec, count: int, generator: torch.Generator) -> Tensor:
    if spec.kind == "normal":
        return SPREAD * torch.randn(count, dtype=spec.dtype, generator=generator)
    wide = torch.rand(count, dtype=torch.float64, generator=generator).mul_(2 * WIDE).sub_(WIDE)
    tiny = torch.finfo(spec.dtype).eps / 4
    return torch.sigmoid(wide).to(spec.dtype).clamp_(tiny, 1 - 2 * tiny)


def _ratio(spec: NoiseSpec, value: Tensor) -> Tensor:
    """Return the density of a number drawn far out over its own."""
    if spec.kind == "normal":
        return torch.exp(value.square() / 2 * (1 - 1 / SPREAD**2)) / SPREAD
    near = torch.logit(value).abs() <= WIDE
    return torch.where(near, 1 / (2 * WIDE * value * (1 - value)), 0.0)
