"""Sequential tests: is the mean of draws 0, asked again and again as draws come in, at one level in all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

GUARD = 100.0
"""Draws for each square of the skewness before a test is believed."""
RARE = 20.0
"""Draws of the rarest outcome before a test is believed."""
NORMAL = NormalDist()


class Moments:
    """The first three moments of draws [n, tests], as they come in."""

    def __init__(self, tests: int) -> None:
        """Start with no draw."""
        self.count = 0
        self._sums = torch.zeros(3, tests, dtype=torch.float64)
        self._origin: Tensor | None = None

    def add(self, draws: Tensor, times: Tensor | None = None) -> None:
        """Take in draws [k, tests], each so many times, or once."""
        draws = draws.double()
        if self._origin is None:  # so that sums of powers keep their digits
            self._origin = draws.mean(0)
        centred = draws - self._origin
        powers = torch.stack([centred, centred.square(), centred.pow(3)])
        self.count += len(draws) if times is None else int(times.sum())
        self._sums += (powers if times is None else powers * times[:, None]).sum(1)

    @property
    def mean(self) -> Tensor:
        """The mean of each test."""
        assert self._origin is not None
        return self._origin + self._sums[0] / self.count

    @property
    def deviation(self) -> Tensor:
        """The standard deviation of a draw."""
        shift = self._sums[0] / self.count
        variance = (self._sums[1] / self.count - shift.square()).clamp(min=0.0)
        return (variance * self.count / max(self.count - 1, 1)).sqrt()

    @property
    def error(self) -> Tensor:
        """The standard error of the mean."""
        return self.deviation / math.sqrt(self.count)

    @property
    def skews(self) -> Tensor:
        """The size of the skewness of each test, 0 where it does not vary at all."""
        shift, second, third = self._sums / self.count
        raw = third - 3 * shift * second + 2 * shift.pow(3)
        deviation = self.deviation
        varies = deviation > 1e-12 * (self.mean.abs() + deviation.max())
        return torch.where(varies, raw.abs() / torch.where(varies, deviation, 1.0).pow(3), 0.0)

    @property
    def skew(self) -> float:
        """The largest skewness of a test that varies at all."""
        return float(self.skews.max())


@dataclass(frozen=True)
class Look:
    """What one look at the draws shows: p-values of both families, and the level that it may spend.

    ``critical`` is the score beyond which the test along the reference rejects.
    """

    every: float
    along: float
    level: float
    critical: float
    is_ready: bool

    @property
    def rejects(self) -> bool:
        """Whether a mean is not 0."""
        return self.is_ready and min(self.every, self.along) < self.level


def look(moments: Moments, rounding: Tensor, *, alpha: float, looks: int, rarest: float) -> Look:
    """Test whether all means are 0 up to ``rounding``; the last test is the one along the reference.

    Two families share what this look may spend: every parameter, by Bonferroni, and the direction of the
    reference, which sees errors of scale that are spread over many parameters; they are one where there is
    one entry. Heavy tails and rare outcomes make tests too sure of themselves, so that neither is believed
    before there are enough draws.
    """
    mean, error = (moments.mean.abs() - rounding).clamp(min=0.0), moments.error
    scores = torch.where(mean > 0, mean / error, mean)
    p = [p_value(float(score), moments.count) for score in (scores[:-1].max(), scores[-1])]
    tests = len(scores) - 1
    families, level = min(tests, 2), spent(alpha, looks)
    is_ready = moments.count >= max(GUARD * moments.skew**2, RARE / rarest)
    every, along = min(1.0, families * tests * p[0]), min(1.0, families * p[1])
    return Look(every, along, level, quantile(level / families / 2), is_ready)


def spent(alpha: float, looks: int) -> float:
    """Return the level that a look may spend after so many others: they add up to alpha.

    >>> round(sum(spent(0.01, k) for k in range(10_000)), 5)
    0.01
    """
    return alpha / ((looks + 1) * (looks + 2))


def quantile(tail: float) -> float:
    """Return what a normal number exceeds with a probability."""
    return NORMAL.inv_cdf(1 - tail)


def p_value(score: float, count: int) -> float:
    """Return P(|t| > score) of Student's t for a mean of so many draws, by Wallace's approximation."""
    if math.isinf(score):
        return 0.0
    freedom = count - 1
    shrunk = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(score**2 / freedom))
    return math.erfc(shrunk / math.sqrt(2))
