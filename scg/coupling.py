"""Coupling: base noise that replicates draw together, not each on its own, to fill its space evenly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from scg.noise import NoiseSpec, rounded

ANTITHETIC, SOBOL, INDEPENDENT = "antithetic", "sobol", "independent"
SCHEMES = (ANTITHETIC, SOBOL, INDEPENDENT)
"""The words for how noise is drawn across replicates."""
DIMENSIONS: int = SobolEngine.MAXDIM
"""The most numbers that one sequence of Sobol' has."""
SCRAMBLING = "#scrambling"
"""The name of what scrambles sequences: no name of a node."""
DIGITS, BITS = 30, 52
"""Binary digits of the points that torch gives, and of a number that is drawn."""


@dataclass(frozen=True, eq=False)
class Sobol:
    """Nodes whose noise is one Sobol' sequence over the replicates, its dimensions their numbers in turn.

    ``specs`` have the shape of noise beyond the ``plates``, and ``points`` [K, dimensions] the first binary
    digits of the sequence as integers.
    """

    specs: tuple[NoiseSpec, ...]
    plates: tuple[str, ...]
    points: Tensor

    def numbers(self, batch: int) -> int:
        """Return how many uniform numbers scramble it on its own for each of a batch."""
        count, size = self.points.shape
        return batch * (count + (digits(count) + 1) * size)


@dataclass(frozen=True, eq=False)
class Coupling:
    """How the noise of nodes is coupled across replicates: in antithetic ``pairs``, or by ``sequences``."""

    pairs: Mapping[str, NoiseSpec]
    sequences: tuple[Sobol, ...]

    def numbers(self, sizes: Mapping[str, int]) -> NoiseSpec:
        """Return what is drawn besides to scramble sequences, under the sizes of plates."""
        batches = [math.prod([sizes[plate] for plate in own.plates]) for own in self.sequences]
        total = sum(own.numbers(batch) for own, batch in zip(self.sequences, batches, strict=True))
        return NoiseSpec(SCRAMBLING, "uniform", (total,), torch.float64)

    def __call__(self, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return noise [K, ...] with what is coupled in place of what was drawn for it.

        Pairs take the first half of what was drawn; sequences are scrambled by ``numbers``.
        """
        found = {**noise, **{name: paired(noise[name], spec.kind) for name, spec in self.pairs.items()}}
        random = found.pop(SCRAMBLING)
        for own in self.sequences:
            sizes = noise[own.specs[0].name].shape[1 : 1 + len(own.plates)]
            count = own.numbers(math.prod(sizes))
            found.update(joint(own, random[:count], sizes))
            random = random[count:]
        return found


def coupling(
    schemes: Mapping[str, str],
    specs: Mapping[str, NoiseSpec],
    plates: Mapping[str, tuple[str, ...]],
    samples: int,
) -> Coupling:
    """Return how noise is coupled, by the scheme of each node; nodes of the same plates share a sequence."""
    pairs = {name: specs[name] for name, scheme in schemes.items() if scheme == ANTITHETIC}
    together: dict[tuple[str, ...], list[NoiseSpec]] = {}
    for name, scheme in schemes.items():
        if scheme == SOBOL:
            together.setdefault(plates[name], []).append(specs[name])
    return Coupling(
        pairs,
        tuple(
            Sobol(tuple(several), labels, sobol_points(samples, dimensions(several)))
            for labels, several in together.items()
        ),
    )


def dimensions(specs: Sequence[NoiseSpec]) -> int:
    """Return how many numbers nodes draw together, for one element of their plates."""
    return sum(math.prod(spec.shape) for spec in specs)


def paired(noise: Tensor, kind: str, dim: int = 0) -> Tensor:
    """Return noise whose second half along the replicates is the first one turned over: -z, or 1 - u.

    >>> paired(torch.tensor([0.25, 0.125, 0.5, 0.5]), "uniform")
    tensor([0.2500, 0.1250, 0.7500, 0.8750])
    """
    first = noise.narrow(dim, 0, noise.shape[dim] // 2)
    if kind == "normal":
        return torch.cat((first, -first), dim)
    return torch.cat((first, (1 - first).clamp(max=1 - torch.finfo(noise.dtype).eps / 2)), dim)


@cache
def sobol_points(count: int, size: int) -> Tensor:
    """Return the first points [count, size] of Sobol' (1967), all their binary digits as one integer.

    >>> sobol_points(4, 2).tolist()
    [[0, 0], [2, 2], [3, 1], [1, 3]]
    """
    points = SobolEngine(size).draw(count, dtype=torch.float64)
    whole: Tensor = (points * 2**DIGITS).long()
    return whole >> (DIGITS - digits(count))


def digits(count: int) -> int:
    """Return how many binary digits the first points of a sequence have.

    >>> digits(4), digits(5)
    (2, 3)
    """
    return max(1, (count - 1).bit_length())


def scrambled(points: Tensor, random: Tensor, batch: int) -> Tensor:
    """Scramble points [K, D] on their own for each of a batch, [K, batch, D]: uniform, and open at both ends.

    A random lower triangular matrix over the field of two elements and a digital shift for each dimension
    (Matousek, 1998, "On the L2-discrepancy for anchored boxes"), and a random order for each of the batch, so
    that sequences side by side are not of one order. For its variance it is as good as Owen's scrambling.
    ``random`` are as many uniform numbers as ``Sobol.numbers`` says.

    >>> strata = scrambled(sobol_points(8, 2), torch.rand(16, dtype=torch.float64), 1).mul(8).long()
    >>> bool((strata.sort(0).values == torch.arange(8)[:, None, None]).all())
    True
    """
    count, size = points.shape
    depth = digits(count)
    order = random[: batch * count].view(batch, count).argsort(1)
    picked = points.to(random.device)[order.mT]
    shift, *columns = (random[batch * count :] * 2.0**BITS).long().view(depth + 1, batch, size)
    found: Tensor = shift.expand(picked.shape)
    for place, column in enumerate(columns):
        leading = 1 << (BITS - 1 - place)
        mixed = column.bitwise_and(leading - 1).bitwise_or(leading)
        found = found ^ ((picked >> (depth - 1 - place)) & 1) * mixed
    return found.to(torch.float64).add_(0.5).mul_(2.0**-BITS)


def joint(sequence: Sobol, random: Tensor, plates: Sequence[int]) -> dict[str, Tensor]:
    """Draw the noise of the nodes of a sequence, [K, *plates, ...], for every element of plates apart."""
    unit = scrambled(sequence.points, random, math.prod(plates))
    several = unit.split([math.prod(spec.shape) for spec in sequence.specs], -1)
    return {
        spec.name: rounded(_of_kind(part, spec.kind), spec).reshape(len(unit), *plates, *spec.shape)
        for spec, part in zip(sequence.specs, several, strict=True)
    }


def _of_kind(unit: Tensor, kind: str) -> Tensor:
    return torch.special.ndtri(unit) if kind == "normal" else unit
