"""Sequential tests: what they call biased, simulated on gradients of few values."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from scg.verification.sequential import Look, Moments, look, p_value, quantile, spent

ALPHA = 0.01


def decided(values: Tensor, masses: Tensor, scale: float, resolution: float, seed: int, rarest: float) -> str:
    """Run the procedure of ``verify`` on a gradient that takes ``values`` with some probabilities."""
    generator = np.random.default_rng(seed)
    mean = float(values @ masses)
    gaps = (values * scale - mean)[:, None] * torch.tensor([1.0, 1 / mean], dtype=torch.double)
    moments, looks, count = Moments(2), 0, 1024
    while True:
        more = count - moments.count
        moments.add(gaps, torch.from_numpy(generator.multinomial(more, masses.numpy())).double())
        seen = look(moments, torch.zeros(2, dtype=torch.double), alpha=ALPHA, looks=looks, rarest=rarest)
        if seen.rejects:
            return "biased"
        looks += seen.is_ready
        shown = float(moments.error[-1]) * (seen.critical + quantile(0.05))
        if seen.is_ready and shown <= resolution:
            return "unbiased"
        if count >= 2**20:
            return "undecided"
        count *= 2


def toy(logit: float = 0.3, target: float = 0.45) -> tuple[Tensor, Tensor]:
    """The score of a coin, by its outcomes."""
    p = 1 / (1 + math.exp(-logit))
    values = [(1 - target) ** 2 * (1 - p), -(target**2) * p]
    return torch.tensor(values, dtype=torch.double), torch.tensor([p, 1 - p], dtype=torch.double)


def rare(p: float, cost: float) -> tuple[Tensor, Tensor]:
    """The score of a rare outcome that costs much."""
    values = [cost * (1 - p), -0.1 * p]
    return torch.tensor(values, dtype=torch.double), torch.tensor([p, 1 - p], dtype=torch.double)


@pytest.mark.parametrize(
    ("case", "resolution", "seeds"),
    [(toy(), 0.3, 4000), (rare(0.01, 10.0), 0.4, 4000), (rare(0.001, 100.0), 0.5, 2000)],
)
def test_what_is_right_is_called_biased_seldom(
    case: tuple[Tensor, Tensor], resolution: float, seeds: int
) -> None:
    found = [decided(*case, 1.0, resolution, seed, float(case[1].min())) for seed in range(seeds)]
    wrong = found.count("biased") / seeds
    assert found.count("undecided") == 0
    assert wrong <= 1.5 * ALPHA
    assert wrong > 0 or case[1].min() < 0.1


def test_an_error_of_scale_is_seen_at_its_resolution() -> None:
    found = [decided(*toy(), 1.3, 0.3, seed, 0.4) for seed in range(300)]
    assert found.count("biased") >= 0.9 * len(found)


def one_look(tests: int, *, looks: int = 0, skewed: bool = False) -> tuple[Moments, Look]:
    """Look at draws of tests of which the first has a mean of 0.1 deviations, as the last one has."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(4096, tests, generator=generator, dtype=torch.double)
    draws = draws - draws.mean(0)
    draws[:, [0, -1]] += 0.1
    if skewed:
        draws[:8, 1] = 40.0
    moments = Moments(tests)
    moments.add(draws)
    return moments, look(moments, torch.zeros(tests).double(), alpha=ALPHA, looks=looks, rarest=0.5)


def test_every_entry_and_the_direction_share_one_level() -> None:
    moments, seen = one_look(51)
    first, *_, last = (float(score) for score in moments.mean / moments.error)
    assert math.isclose(seen.every, 2 * 50 * p_value(first, 4096))
    assert math.isclose(seen.along, 2 * p_value(last, 4096))
    assert math.isclose(2 * NormalDist().cdf(-seen.critical), ALPHA / 2 / 2)


def test_one_entry_is_its_direction_and_has_the_level_alone() -> None:
    moments, seen = one_look(2)
    first, last = (float(score) for score in moments.mean / moments.error)
    assert math.isclose(seen.every, p_value(first, 4096))
    assert math.isclose(seen.along, p_value(last, 4096))
    assert math.isclose(2 * NormalDist().cdf(-seen.critical), ALPHA / 2)


def test_later_looks_spend_less() -> None:
    assert [one_look(3, looks=k)[1].level for k in range(3)] == [ALPHA / 2, ALPHA / 6, ALPHA / 12]


def test_one_skewed_entry_makes_all_wait() -> None:
    assert one_look(3)[1].is_ready
    moments, seen = one_look(3, skewed=True)
    assert moments.skew > 10
    assert not seen.is_ready


def test_what_rounding_may_leave_is_no_bias() -> None:
    moments, _ = one_look(3)
    rounding = torch.tensor([0.11, 0.0, 0.11]).double()
    seen = look(moments, rounding, alpha=ALPHA, looks=0, rarest=0.5)
    assert seen.every > 0.5
    assert seen.along == 1.0


def test_levels_add_up() -> None:
    assert math.isclose(sum(spent(ALPHA, looks) for looks in range(100_000)), ALPHA, rel_tol=1e-4)


def test_p_values_are_those_of_student() -> None:
    for count in (1024, 2**17):
        for score in (0.5, 2.0, 4.5, 7.0):
            assert math.isclose(p_value(score, count), 2 * stats.t.sf(score, count - 1), rel_tol=0.02)


def test_moments_are_those_of_all_draws() -> None:
    torch.manual_seed(0)
    draws = torch.randn(5000, 3, dtype=torch.double).exp() + 1e3
    moments = Moments(3)
    for part in draws.sort(0).values.split(700):  # the first is no likeness of the rest
        moments.add(part)
    assert torch.allclose(moments.mean, draws.mean(0))
    assert torch.allclose(moments.deviation, draws.std(0))
    assert math.isclose(moments.skew, float(stats.skew(draws.numpy()).max()), rel_tol=1e-3)


def test_nothing_is_believed_before_there_are_enough_draws() -> None:
    moments = Moments(2)
    moments.add(torch.full((1024, 2), 1.0))
    zero = torch.zeros(2, dtype=torch.double)
    assert look(moments, zero, alpha=ALPHA, looks=0, rarest=0.5).rejects
    assert not look(moments, zero, alpha=ALPHA, looks=0, rarest=0.001).is_ready
