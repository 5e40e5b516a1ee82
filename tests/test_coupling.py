"""Coupled noise: the right law for every replicate, pairs turned over, sequences that fill the cube."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from scg.coupling import SCRAMBLING, Sobol, coupling, joint, paired, scrambled, sobol_points
from scg.noise import NoiseSpec, uniform

RUNS = 4000


def spec(name: str, kind: str, *shape: int, dtype: torch.dtype = torch.float64) -> NoiseSpec:
    return NoiseSpec(name, kind, shape, dtype)


def many(count: int, size: int) -> Tensor:
    """Return the points of many runs, [runs, count, size]."""
    return scrambled(*random(count, size, RUNS), RUNS).movedim(1, 0)


def random(count: int, size: int, batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return points, and what scrambles them."""
    points = sobol_points(count, size)
    return points, uniform(seed, Sobol((), (), points).numbers(batch))


@pytest.mark.parametrize("count", [2, 5, 8])
def test_every_number_of_a_sequence_is_uniform(count: int) -> None:
    drawn = many(count, 3)
    for replicate in range(count):
        for dimension in range(3):
            assert stats.kstest(drawn[:, replicate, dimension].numpy(), "uniform").pvalue > 1e-4


def test_numbers_of_one_replicate_are_independent() -> None:
    """Of pairs of dimensions, in 64 cells of a square each."""
    drawn = many(8, 3)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        cells = (drawn[:, 3, one] * 8).long() * 8 + (drawn[:, 3, other] * 8).long()
        assert stats.chisquare(torch.bincount(cells, minlength=64).numpy()).pvalue > 1e-4


@pytest.mark.parametrize("depth", [1, 3, 6])
def test_every_dimension_has_one_number_in_each_interval(depth: int) -> None:
    count = 2**depth
    strata = (scrambled(*random(count, 7, 4), 4) * count).long()
    assert (strata.sort(0).values == torch.arange(count)[:, None, None]).all()


def test_two_dimensions_have_one_point_in_each_cell() -> None:
    """The first two dimensions are a net: every elementary interval of volume 1/16 has one point."""
    drawn = scrambled(*random(16, 2, 2), 2)
    for first in range(5):
        shape = torch.tensor([2**first, 2 ** (4 - first)])
        cells = (drawn * shape).long()
        codes = cells[..., 0] * shape[1] + cells[..., 1]
        assert (codes.sort(0).values == torch.arange(16)[:, None]).all()


def test_elements_of_a_plate_are_not_of_one_order() -> None:
    """With one order for all, what reads two elements would see a line and not a square."""
    drawn = scrambled(*random(256, 1, 40), 40)[..., 0] - 0.5
    together = drawn.mT @ drawn * 12 / 256
    apart = together[~torch.eye(40, dtype=torch.bool)]
    assert float(apart.abs().max()) < 5 / 256**0.5


def test_ends_are_open_and_normal_numbers_finite() -> None:
    single = spec("u", "uniform", dtype=torch.float32), spec("z", "normal", dtype=torch.float32)
    for several in ((spec("u", "uniform"), spec("z", "normal")), single):
        points, numbers = random(64, 2, 4096)
        found = joint(Sobol(several, ("batch",), points), numbers, (4096,))
        assert found["u"].dtype == several[0].dtype and found["u"].shape == (64, 4096)
        assert float(found["u"].min()) > 0 and float(found["u"].max()) < 1
        assert found["z"].isfinite().all()
        assert stats.kstest(found["z"][0].double().numpy(), "norm").pvalue > 1e-4


def test_normal_numbers_are_the_inverse_distribution_of_uniform_ones() -> None:
    points, numbers = random(128, 2, 1)
    unit = joint(Sobol((spec("z", "uniform", 2),), (), points), numbers, ())["z"]
    normal = joint(Sobol((spec("z", "normal", 2),), (), points), numbers, ())["z"]
    assert torch.allclose(normal, torch.from_numpy(stats.norm.ppf(unit.numpy())), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_partners_are_turned_over_and_stay_within(dtype: torch.dtype) -> None:
    bounds = torch.finfo(dtype)
    low, high = bounds.eps**2, 1 - bounds.eps / 2
    noise = torch.tensor([low, 0.25, high, 0.0, 0.0, 0.0], dtype=dtype)
    found = paired(noise, "uniform")
    assert found[:3].equal(noise[:3]) and found[4] == 0.75
    assert float(found.min()) > 0 and float(found.max()) < 1
    assert paired(noise, "normal")[3:].equal(-noise[:3])


def test_one_sequence_has_the_nodes_of_the_same_plates() -> None:
    specs = {name: spec(name, "uniform", 2) for name in "abcd"}
    plates = {"a": (), "b": ("batch",), "c": (), "d": ()}
    found = coupling({"a": "sobol", "b": "sobol", "c": "sobol", "d": "antithetic"}, specs, plates, 4)
    assert [[own.name for own in sequence.specs] for sequence in found.sequences] == [["a", "c"], ["b"]]
    assert [tuple(sequence.points.shape) for sequence in found.sequences] == [(4, 4), (4, 2)]
    assert list(found.pairs) == ["d"]
    noise = {name: torch.rand(4, *(5,) * len(plates[name]), 2, dtype=torch.float64) for name in "abcd"}
    noise[SCRAMBLING] = uniform(3, *found.numbers({"batch": 5}).shape)
    drawn = found(noise)
    del noise[SCRAMBLING]
    assert {name: value.shape for name, value in drawn.items()} == {n: v.shape for n, v in noise.items()}
    assert not drawn["b"][:, 0].equal(drawn["b"][:, 1])
    joined = torch.cat((drawn["a"], drawn["c"]), 1)
    assert ((joined * 4).long().sort(0).values == torch.arange(4)[:, None]).all()
