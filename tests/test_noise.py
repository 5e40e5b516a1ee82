"""Base noise: the right laws, open ends, independent streams, and the same bits every time."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from scg import noise
from scg.noise import NoiseSpec, noise_layout, start_generators, substream, traced, uniform
from scg.noise import draw_noise as draw_layout
from tests.selection import some

N = 100_000
SEEDS = (0, 1, -1, 2**62, 123_456_789)


def spec(name: str, kind: str, *shape: int, dtype: torch.dtype = torch.float64) -> NoiseSpec:
    return NoiseSpec(name, kind, shape, dtype)


def draw_noise(seed: int, specs: list[NoiseSpec]) -> dict[str, Tensor]:
    return draw_layout(seed, noise_layout(specs))


@pytest.mark.parametrize("seed", SEEDS)
def test_numbers_are_uniform(seed: int) -> None:
    drawn = uniform(seed, N)
    assert drawn.dtype == torch.float64 and drawn.shape == (N,)
    assert stats.kstest(drawn.numpy(), "uniform").pvalue > 1e-4


@pytest.mark.parametrize("seed", SEEDS)
def test_every_bit_is_fair(seed: int) -> None:
    bits = (uniform(seed, N) * 2.0**52).long()
    ones = torch.stack([(bits >> k) & 1 for k in range(52)]).sum(1).double()
    z = (ones - N / 2) / (N / 4) ** 0.5
    assert float(z.abs().max()) < 5.0


@pytest.mark.parametrize("lag", [1, 2, 3, 7, 64])
def test_numbers_of_one_stream_are_uncorrelated(lag: int) -> None:
    drawn = uniform(5, N) - 0.5
    z = (drawn[:-lag] * drawn[lag:]).mean() * 12 * (N - lag) ** 0.5
    assert abs(float(z)) < 5.0


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations([0, 1, 2, 3, 2**40], 2)))
def test_seeds_are_independent(one: int, other: int) -> None:
    a, b = uniform(one, N) - 0.5, uniform(other, N) - 0.5
    z = (a * b).mean() * 12 * N**0.5
    assert abs(float(z)) < 5.0


def test_pairs_of_seeds_fill_the_square() -> None:
    """First numbers of consecutive seeds are as good as numbers of one stream."""
    first = torch.stack([uniform(seed, 1)[0] for seed in range(2000)])
    assert stats.kstest(first.numpy(), "uniform").pvalue > 1e-4
    z = ((first[:-1] - 0.5) * (first[1:] - 0.5)).mean() * 12 * 1999**0.5
    assert abs(float(z)) < 5.0


def test_substreams_are_distinct_and_independent() -> None:
    names = [f"node_{k}" for k in range(300)]
    keys = [substream(seed, name) for seed in range(3) for name in names]
    assert len(set(keys)) == len(keys)
    a, b = (uniform(substream(0, name), N) - 0.5 for name in ("a", "b"))
    assert abs(float((a * b).mean() * 12 * N**0.5)) < 5.0


def test_names_by_the_hundred_thousand_have_streams_of_their_own() -> None:
    """Of so many in 32 bits, 10 would meet."""
    names = (f"{stem}{k}" for stem in ("z", "layer_", "w_", "x#branches_") for k in range(75_001))
    keys = {substream(0, name) for name in names}
    assert len(keys) == 4 * 75_001


def test_names_of_one_checksum_have_streams_of_their_own() -> None:
    """Of both pairs the CRC-32 is the same."""
    for one, other in (("plumless", "buckeroo"), ("codding", "gnu")):
        assert zlib.crc32(one.encode()) == zlib.crc32(other.encode())
        assert substream(0, one) != substream(0, other)


def test_pairs_of_streams_are_uncorrelated() -> None:
    """The largest z score of 10,011 pairs: one in a million sets of pairs exceeds 6.5 by chance."""
    drawn = torch.stack([uniform(substream(0, f"node_{k}"), 4096) for k in range(142)]) - 0.5
    z = drawn @ drawn.mT * 12 / 4096**0.5
    above = torch.triu(torch.ones_like(z, dtype=torch.bool), 1)
    pairs = z[above]
    assert len(pairs) == 10_011
    assert float(pairs.abs().max()) < 6.5
    assert abs(float(pairs.square().mean()) - 1) < 5 * (2 / len(pairs)) ** 0.5


LARGE = (2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**64 + 5, 10**40, -(2**63), -(2**63) - 1, -(10**40))


def test_seeds_have_any_size() -> None:
    first = [float(uniform(seed, 1)) for seed in (*LARGE, 5, -1, 0)]
    assert len(set(first)) == len(first)
    assert torch.equal(uniform(np.int64(-3), 4), uniform(-3, 4))
    assert substream(2**70, "b") != substream(2**70 + 1, "b")


def test_generators_start_from_all_bits_of_a_seed() -> None:
    def first(seed: int) -> Tensor:
        with torch.random.fork_rng():
            start_generators(seed)
            return torch.rand(N, dtype=torch.float64)

    drawn = [first(seed) for seed in (5, 5 + 2**32, 5 + 2**60, 5 - 2**63)]
    for one, other in itertools.combinations(drawn, 2):
        assert abs(float(((one - 0.5) * (other - 0.5)).mean() * 12 * N**0.5)) < 5.0
    assert stats.kstest(drawn[1].numpy(), "uniform").pvalue > 1e-4
    assert torch.equal(first(7), first(7))


@pytest.mark.parametrize("backend", some(["inductor", "aot_eager"], 2))
def test_compiled_draws_have_the_bits_of_eager_ones(backend: str, compiling: None) -> None:
    """For any seed and count, of which none but the largest seeds has torch compile anew."""
    counter = CompileCounterWithBackend(backend)
    layout = noise_layout([spec("u", "uniform", 9), spec("z", "normal", 4)])

    def draw(seed: int, count: int) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        start = traced(seed) if torch.compiler.is_compiling() else seed
        return uniform(seed, count), draw_layout(seed, layout), uniform(substream(start, "own"), 3)

    fast = torch.compile(draw, fullgraph=True, backend=counter)
    for seed in (3, 4, 5, 6, 0, 1, -1, -7, 2**62, 2**63 - 1, -(2**63)):
        for count in (64, 7, 1001):
            found, expected = fast(seed, count), draw(seed, count)
            assert torch.equal(found[0], expected[0]) and torch.equal(found[2], expected[2])
            assert torch.equal(found[1]["u"], expected[1]["u"])
            assert torch.allclose(found[1]["z"], expected[1]["z"], rtol=0, atol=1e-14)
    assert counter.frame_count <= 3
    for seed in (2**63, -(2**70)):
        assert torch.equal(fast(seed, 7)[0], draw(seed, 7)[0])


@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 50))
def test_the_ends_are_open_and_the_same_seed_gives_the_same_bits(seed: int, count: int) -> None:
    drawn = uniform(seed, count)
    assert bool((drawn > 0).all()) and bool((drawn < 1).all())
    assert torch.equal(drawn, uniform(seed, count))
    assert torch.equal(drawn, uniform(seed, 64)[:count])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rounding_never_reaches_an_end(dtype: torch.dtype) -> None:
    drawn = draw_noise(3, [spec("u", "uniform", 1 << 20, dtype=dtype)])["u"]
    assert drawn.dtype == dtype
    assert float(drawn.max()) < 1.0 and float(drawn.min()) > 0.0


@pytest.mark.parametrize("end", [2.0**-53, 1.0 - 2.0**-53])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_extreme_draws_are_rounded_inside(
    end: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def extreme(seed: int, count: int, device: torch.device | None = None) -> Tensor:
        return torch.full((count,), end, dtype=torch.float64, device=device)

    monkeypatch.setattr(noise, "uniform", extreme)
    specs = [spec("u", "uniform", 2, dtype=dtype), spec("z", "normal", 2, dtype=dtype)]
    drawn = draw_noise(0, specs)
    assert bool((drawn["u"] > 0).all()) and bool((drawn["u"] < 1).all())
    assert bool(drawn["z"].isfinite().all()) and bool((drawn["z"].abs() > 8).all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_a_zero_of_torch_s_generator_is_moved_inside(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand", torch.zeros)
    groups = noise.merged(noise_layout([spec("u", "uniform", 3, dtype=dtype)]))
    drawn = noise.global_noise(groups)["u"]
    assert bool((drawn > 0).all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_normal_noise_is_standard_normal(dtype: torch.dtype) -> None:
    drawn = draw_noise(7, [spec("z", "normal", 2 * N, dtype=dtype)])["z"]
    assert drawn.dtype == dtype and bool(drawn.isfinite().all())
    z = drawn.double()
    for power, expected, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert abs(float(z.pow(power).mean()) - expected) < 5.0 * (variance / len(z)) ** 0.5
    assert stats.kstest(z.numpy(), "norm").pvalue > 1e-4


def test_kinds_and_shapes_are_as_specified() -> None:
    specs = [
        spec("u", "uniform", 3, 2),
        spec("z", "normal"),
        spec("v", "uniform", 0, 4),
        spec("w", "normal", 5, dtype=torch.float32),
    ]
    drawn = draw_noise(0, specs)
    assert list(drawn) == ["u", "z", "v", "w"]
    assert {name: value.shape for name, value in drawn.items()} == {s.name: s.shape for s in specs}
    assert {name: value.dtype for name, value in drawn.items()} == {s.name: s.dtype for s in specs}


def test_nodes_of_one_draw_are_independent() -> None:
    drawn = draw_noise(1, [spec(name, kind, N) for name, kind in (("u", "uniform"), ("v", "uniform"))])
    assert abs(float(((drawn["u"] - 0.5) * (drawn["v"] - 0.5)).mean() * 12 * N**0.5)) < 5.0
    drawn = draw_noise(1, [spec("y", "normal", N), spec("z", "normal", N), spec("u", "uniform", N)])
    assert abs(float((drawn["y"] * drawn["z"]).mean() * N**0.5)) < 5.0
    assert abs(float((drawn["y"] * (drawn["u"] - 0.5)).mean() * (12 * N) ** 0.5)) < 5.0


def test_a_draw_repeats_bit_by_bit_and_leaves_torch_s_generator_alone() -> None:
    specs = [spec("u", "uniform", 9), spec("z", "normal", 4)]
    before = torch.random.get_rng_state()
    one, other = draw_noise(11, specs), draw_noise(11, specs)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["u"], draw_noise(12, specs)["u"])


def test_what_a_node_gets_depends_on_seed_and_shapes_not_on_names() -> None:
    one = draw_noise(4, [spec("a", "uniform", 6), spec("b", "normal", 3)])
    other = draw_noise(4, [spec("x", "uniform", 6), spec("y", "normal", 3)])
    assert torch.equal(one["a"], other["x"]) and torch.equal(one["b"], other["y"])


def test_the_order_of_kinds_does_not_matter() -> None:
    """Normal nodes come first whatever the order, so that declaring a uniform node moves none of them."""
    u, z = spec("u", "uniform", 6), spec("z", "normal", 3)
    one, other = draw_noise(4, [u, z]), draw_noise(4, [z, u])
    assert torch.equal(one["u"], other["u"]) and torch.equal(one["z"], other["z"])
    assert torch.equal(one["z"], draw_noise(4, [z])["z"])


def test_nothing_is_drawn_for_no_nodes() -> None:
    assert draw_noise(0, []) == {}


def test_neighbouring_seeds_share_no_numbers() -> None:
    for one, other in ((0, 1), (5, 6), (0, noise.GOLDEN)):
        several = [set(uniform(seed, 1000).tolist()) for seed in (one, other)]
        assert several[0].isdisjoint(several[1])


def test_the_seed_of_given_noise_knows_where_each_number_is() -> None:
    numbers = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    seeds = {
        noise.seed_of(given)
        for given in (
            {"b": numbers},
            {"b": numbers.flip(0)},
            {"d": numbers},
            {"b": numbers[:2], "d": numbers[2:]},
            {"b": numbers[2:], "d": numbers[:2]},
        )
    }
    assert len(seeds) == 5


@pytest.mark.parametrize("bits", [0, -1])
def test_seeded_noise_is_open_at_both_ends(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "_bits", lambda *_: torch.tensor([bits]))
    assert 0 < float(uniform(0, 1)) < 1
