"""Straight lines through the domain of a function, and the search for jumps along them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from scg.probes.recording import same
from scg.probes.replay import Observation, Replay

GRID = 12  # even, so that no grid point is the origin: zeros sit on the kinks of relu and abs
BESIDE = 8  # a bracket around a jump is compared with neighbours this many times as wide

Site = tuple[str, int]


@dataclass(frozen=True)
class Sample:
    """What was seen at one place of a line."""

    at: float
    seen: Observation

    @property
    def values(self) -> Tensor:
        """The outputs, where the function returned."""
        assert self.seen.values is not None
        return self.seen.values


@dataclass(frozen=True)
class Line:
    """The points origin + t * direction, |t| <= reach."""

    origin: Tensor
    direction: Tensor
    reach: float

    def point(self, t: float) -> Tensor:
        """The point at t."""
        return self.origin + t * self.direction

    def grid(self) -> Tensor:
        """Places along the line, denser around the origin, where the function is likely to be defined."""
        s = torch.linspace(-1, 1, GRID, dtype=torch.float64)
        return self.reach * s * s.abs()


@dataclass(frozen=True)
class Bracket:
    """A piece of a line between two samples."""

    line: Line
    left: Sample
    right: Sample

    def switches(self) -> Iterator[Site]:
        """The recorded values that differ between the two ends."""
        for site in {**self.left.seen.reads, **self.right.seen.reads}:
            if _switches(self.left, self.right, site):
                yield site


@dataclass(frozen=True)
class Gap:
    """A bracket between grid points, and how far each output is from changing as it does next door."""

    bracket: Bracket
    slope: Tensor
    excess: Tensor

    @property
    def left(self) -> Sample:
        """Its lower end."""
        return self.bracket.left

    @property
    def right(self) -> Sample:
        """Its upper end."""
        return self.bracket.right

    @property
    def deviation(self) -> float:
        """The largest excess over all outputs."""
        return float(self.excess.max()) if self.excess.numel() else 0.0


@dataclass(frozen=True)
class Jump:
    """A change of the outputs that does not shrink with the interval."""

    size: float
    place: Tensor

    def describe(self) -> str:
        """Where, for a single number; how far, otherwise."""
        if self.place.numel() == 1:
            return f"jumps at {round(self.place.item(), 3) + 0.0:g}"
        return f"jumps by {self.size:.3g}"


def lines(point: Tensor, seed: int) -> list[Line]:
    """Lines through the point (across, along the diagonal, by scale) and through random ones."""
    generator = torch.Generator().manual_seed(seed)

    def place() -> Tensor:
        return shaped_like(point, torch.randn(point.shape, generator=generator, dtype=torch.float64))

    def direction() -> Tensor:
        """Of either sign but nowhere near zero, so that every coordinate travels."""
        draw = 3 * torch.rand(point.shape, generator=generator, dtype=torch.float64) - 1.5
        return shaped_like(point, draw + 0.5 * draw.sign())

    return [
        Line(point, direction(), 3.0),
        Line(point, torch.ones_like(point), 3.0),
        Line(point, point * direction(), 2.0),
        Line(place(), direction(), 3.0),
        Line(3 * place(), direction(), 9.0),
    ]


def shaped_like(point: Tensor, draw: Tensor) -> Tensor:
    """A draw as a move of the point: of its type, and symmetric where the point is a symmetric matrix."""
    is_square = point.ndim >= 2 and point.shape[-1] == point.shape[-2]
    if is_square and torch.allclose(point, point.mT) and not bool((point == point.flatten()[0]).all()):
        draw = (draw + draw.mT) / 2
    return draw.to(device=point.device, dtype=point.dtype)


def scan(replay: Replay, line: Line) -> list[Sample]:
    """The function along the grid of a line."""
    return [Sample(t, replay.observe(line.point(t))) for t in line.grid().tolist()]


def gaps(line: Line, samples: list[Sample]) -> list[Gap]:
    """The intervals between neighbouring samples at which the function is defined."""
    inside = [s.seen.is_inside for s in samples]
    ends = [(a, b) for (a, b), ok in zip(pairwise(samples), pairwise(inside), strict=True) if all(ok)]
    if not ends:
        return []
    widths = torch.tensor([b.at - a.at for a, b in ends], dtype=torch.float64)[:, None]
    slopes = torch.stack([b.values - a.values for a, b in ends]).cpu() / widths
    before, after = torch.roll(slopes, 1, 0), torch.roll(slopes, -1, 0)
    before[0], after[-1] = after[0], before[-1]
    expected = torch.where((slopes - before).abs() < (slopes - after).abs(), before, after)
    excess = ((slopes - expected).abs() * widths).nan_to_num(0.0, 0.0, 0.0)
    return [Gap(Bracket(line, a, b), s, e) for (a, b), s, e in zip(ends, expected, excess, strict=True)]


def narrow_to_deviation(replay: Replay, gap: Gap, output: int, eps: float) -> Bracket | None:
    """Follow the half in which one output deviates most from its slope next door, until it no longer does."""
    slope = float(gap.slope[output].nan_to_num())
    floor = max(
        float(_floor(gap.left.values, gap.right.values, eps)[output]), 1e-3 * float(gap.excess[output])
    )

    def in_right_half(left: Sample, middle: Sample, right: Sample) -> bool | None:
        nonlocal slope
        widths = middle.at - left.at, right.at - middle.at
        changes = float((middle.values - left.values)[output]), float((right.values - middle.values)[output])
        deviations = [abs(c - slope * w) for c, w in zip(changes, widths, strict=True)]
        if not max(deviations) > floor:
            return None
        goes_right = deviations[1] > deviations[0]
        slope = changes[not goes_right] / widths[not goes_right]
        return goes_right

    return _narrow(gap, in_right_half, replay.glance, eps)


def narrow_to_switch(replay: Replay, gap: Gap, site: Site, eps: float) -> Bracket | None:
    """Follow a switch of a recorded value: of several, the one at which outputs deviate most."""

    def in_right_half(left: Sample, middle: Sample, right: Sample) -> bool:
        if not _switches(left, middle, site):
            return True
        if not _switches(middle, right, site):
            return False
        before, after = (_deviation(gap, a, b) for a, b in ((left, middle), (middle, right)))
        return after > before

    return _narrow(gap, in_right_half, replay.observe, eps)


def _switches(one: Sample, other: Sample, site: Site) -> bool:
    """Say whether a recorded value differs between two samples."""
    here, there = one.seen.reads, other.seen.reads
    return (site in here) != (site in there) or (site in here and not same(here[site], there[site]))


def _deviation(gap: Gap, left: Sample, right: Sample) -> float:
    """Return how far outputs are from changing between two samples as they do next door."""
    change = (right.values - left.values).cpu() - gap.slope * (right.at - left.at)
    return float(change.nan_to_num(0.0, 0.0, 0.0).abs().max()) if change.numel() else 0.0


def _narrow(
    gap: Gap,
    in_right_half: Callable[[Sample, Sample, Sample], bool | None],
    look: Callable[[Tensor], Observation],
    eps: float,
) -> Bracket | None:
    bracket = gap.bracket
    for _ in range(24 if eps < 1e-10 else 13 if eps < 1e-5 else 5):
        left, right = bracket.left, bracket.right
        at = (left.at + right.at) / 2
        middle = Sample(at, look(bracket.line.point(at)))
        if not middle.seen.is_inside:
            return None
        goes_right = in_right_half(left, middle, right)
        if goes_right is None:
            return None
        bracket = Bracket(bracket.line, middle, right) if goes_right else Bracket(bracket.line, left, middle)
    return bracket


def jump_in(replay: Replay, bracket: Bracket, eps: float) -> Jump | None:
    """A jump changes more in a narrow bracket than in wider ones beside it; kinks, roots and poles do not."""
    left, right = bracket.left, bracket.right
    width = BESIDE * (right.at - left.at)
    before, after = (replay.glance(bracket.line.point(t)) for t in (left.at - width, right.at + width))
    if before.values is None or after.values is None:
        return None
    change = (right.values - left.values).abs()
    beside = torch.maximum((left.values - before.values).abs(), (after.values - right.values).abs())
    is_step = (change > _floor(left.values, right.values, eps)) & (change > 4 * beside)
    return Jump(float(change[is_step].max()), bracket.line.point(left.at)) if bool(is_step.any()) else None


def _floor(one: Tensor, other: Tensor, eps: float) -> Tensor:
    """The size below which a change may be rounding."""
    usual = one.nan_to_num(0.0, 0.0, 0.0).square().mean().sqrt()
    return torch.maximum(torch.maximum(one.abs(), other.abs()), usual) * math.sqrt(eps)
