"""Noise recovered from a value draws that value, and has the law of base noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Size, Tensor
from torch import distributions as td

from scg.laws import Law, Relaxable, law_for, law_of

F64 = torch.float64
COUNT = 20_000
FEW = 500
MANY_TO_ONE = (td.HalfNormal, td.LowRankMultivariateNormal, td.RelaxedOneHotCategorical)


def assert_traced_and_mapped(law: Law, parameters: Mapping[str, Tensor]) -> None:
    torch.manual_seed(7)
    noise, fresh = (base_noise(law, parameters, 4) for _ in range(2))
    value = law.draw(parameters, noise)
    expected = law.recovered(parameters, value, fresh)
    mapped = torch.func.vmap(lambda one, other: law.recovered(parameters, one, other))(value, fresh)
    torch.testing.assert_close(mapped, expected)
    compiled = torch.compile(law.recovered, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(parameters, value, fresh), expected)


def named(item: Any) -> str:
    return item.__name__ if isinstance(item, type) else "-".join(item)


def shape_of(law: Law, parameters: Mapping[str, Tensor], count: int) -> Size:
    return law.noise_shape(parameters, Size([count]) + law.batch_shape(parameters))


def base_noise(law: Law, parameters: Mapping[str, Tensor], count: int, dtype: torch.dtype = F64) -> Tensor:
    shape = shape_of(law, parameters, count)
    if law.noise == "normal":
        return torch.randn(shape, dtype=F64).to(dtype)
    return (
        torch.rand(shape, dtype=F64).clamp(min=2.0**-53).to(dtype).clamp(max=1 - torch.finfo(dtype).eps / 2)
    )


def at_ends(noise: Tensor) -> Tensor:
    """Half of uniform numbers moved to the least and the greatest that float32 noise has."""
    ends = torch.tensor([2.0**-53, 1 - 2.0**-24], dtype=noise.dtype)
    return torch.where(torch.rand(noise.shape) < 0.5, ends[torch.randint(2, noise.shape)], noise)


def statistics(noise: Tensor, batch: int) -> Iterator[Tensor]:
    """Coordinates of an event and their sums in pairs, which tell joint laws of equal margins apart."""
    columns = noise.flatten(1 + batch).unbind(-1) if noise.dim() > 1 + batch else (noise,)
    yield from columns
    yield from (a + b for i, a in enumerate(columns) for b in columns[:i])


def assert_base_noise(law: Law, parameters: Mapping[str, Tensor], found: Tensor) -> None:
    """Hold every batch element against base noise, with its neighbours of the same event."""
    batch = len(law.batch_shape(parameters))
    expected = base_noise(law, parameters, len(found))
    assert found.shape == expected.shape
    for ours, theirs in zip(statistics(found, batch), statistics(expected, batch), strict=True):
        for one, other in zip(ours.reshape(len(found), -1).T, theirs.reshape(len(found), -1).T, strict=True):
            assert scipy.stats.ks_2samp(one.numpy(), other.numpy(), method="asymp").pvalue > 1e-5


def assert_open(law: Law, noise: Tensor) -> None:
    assert noise.isfinite().all()
    if law.noise == "uniform":
        assert ((noise > 0) & (noise < 1)).all()


def assert_drawn_again(law: Law, parameters: Mapping[str, Tensor], noise: Tensor, fresh: Tensor) -> None:
    value = law.draw(parameters, noise)
    found = law.recovered(parameters, value, fresh)
    assert found.shape == noise.shape and found.dtype == noise.dtype
    assert_open(law, found)
    again, size = law.draw(parameters, found), value.abs()
    near = (again - value).abs() <= 1e-10 * (size + size.median(0).values) + torch.finfo(F64).tiny
    assert (near | (again == value)).all()


def test_every_law_with_a_pathwise_derivative_recovers(pathwise: Any) -> None:
    law, parameters = law_for(pathwise.cls, pathwise.arguments)
    assert law.recovers
    torch.manual_seed(0)
    if law.noise == "value":
        value = law.sample(parameters, Size([FEW]) + law.batch_shape(parameters))
        fresh = law.sample(parameters, Size([FEW]) + law.batch_shape(parameters))
        assert law.recovered(parameters, value, fresh) is value
        return
    assert_drawn_again(law, parameters, *(base_noise(law, parameters, FEW) for _ in range(2)))


def test_one_to_one_draws_give_their_own_noise_back(explicit: Any) -> None:
    law, parameters = law_for(explicit.cls, explicit.arguments)
    torch.manual_seed(1)
    noise, fresh = (base_noise(law, parameters, FEW) for _ in range(2))
    found = law.recovered(parameters, law.draw(parameters, noise), fresh)
    if explicit.cls in MANY_TO_ONE:
        assert not torch.allclose(found, noise, atol=1e-2)
    else:
        torch.testing.assert_close(found, noise, rtol=1e-10, atol=1e-10)


def test_what_is_recovered_from_torchs_draws_has_the_law_of_base_noise(explicit: Any) -> None:
    law, parameters = law_for(explicit.cls, explicit.arguments)
    torch.manual_seed(2)
    batch = Size([COUNT]) + law.batch_shape(parameters)
    if explicit.cls is td.GeneralizedPareto:  # of which torch draws float32 numbers
        value = law.draw(parameters, base_noise(law, parameters, COUNT))
    else:
        value = law.distribution(law.expand(parameters, batch)).sample()
    assert_base_noise(law, parameters, law.recovered(parameters, value, base_noise(law, parameters, COUNT)))


def _of(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=F64)


THIN = torch.tensor([[1.0, 0.0], [1.0, 1e-6]], dtype=F64)
EXTREMES: list[tuple[type[td.Distribution], dict[str, Any]]] = [
    *(
        (cls, {"loc": _of(0.0, 1e6, -50.0), "scale": _of(1e-8, 1e5, 1e-3)})
        for cls in (td.Normal, td.Laplace, td.Cauchy, td.Gumbel)
    ),
    (td.LogNormal, {"loc": _of(-500.0, 300.0, 0.0), "scale": _of(10.0, 1e-6, 3.0)}),
    (td.LogisticNormal, {"loc": _of(-3.0, 3.0, 0.0), "scale": _of(2.0, 1e-6, 3.0)}),
    (td.HalfNormal, {"scale": _of(1e-30, 1e30)}),
    (td.HalfCauchy, {"scale": _of(1e-30, 1e30)}),
    (td.MultivariateNormal, {"loc": _of(0.0, 1e3), "scale_tril": THIN}),
    (
        td.LowRankMultivariateNormal,
        {
            "loc": _of(0.0, 3.0, 1e3),
            "cov_factor": _of(1e3, 1.0, 0.0).unsqueeze(-1),
            "cov_diag": _of(1e-8, 1, 1e6),
        },
    ),
    (
        td.LowRankMultivariateNormal,
        {"loc": _of(0.0, 3.0), "cov_factor": torch.ones(2, 3, dtype=F64), "cov_diag": _of(1e-8, 1e-8)},
    ),
    (td.Uniform, {"low": _of(-1e6, 0.0, 1.0), "high": _of(1e6, 1e-12, 1.0 + 1e-6)}),
    (td.Exponential, {"rate": _of(1e-30, 1e30)}),
    (td.Weibull, {"scale": _of(1e-6, 1.0, 1e6), "concentration": _of(0.05, 50.0, 1.0)}),
    (td.Pareto, {"scale": _of(1e-6, 1.0, 1e6), "alpha": _of(0.1, 100.0, 1e4)}),
    (td.Kumaraswamy, {"concentration1": _of(0.05, 20.0, 1.0), "concentration0": _of(20.0, 0.2, 1.0)}),
    (
        td.GeneralizedPareto,
        {
            "loc": _of(0.0, 1.0, -1.0, 0.0),
            "scale": _of(1.0, 1e-3, 1e3, 1.0),
            "concentration": _of(1e-9, -1e-9, -2, 3),
        },
    ),
    (td.ContinuousBernoulli, {"logits": _of(30.0, -30.0, 1e-9, -1e-9, 0.0, 0.00999, -0.0101, 500.0, -500.0)}),
    (td.RelaxedBernoulli, {"temperature": _of(0.3), "logits": _of(-8.0, 8.0)}),
    (td.RelaxedBernoulli, {"temperature": _of(20.0), "probs": _of(0.0, 1.0, 0.5)}),
    (td.relaxed_bernoulli.LogitRelaxedBernoulli, {"temperature": _of(0.01), "logits": _of(-100.0, 100.0)}),
    (td.relaxed_bernoulli.LogitRelaxedBernoulli, {"temperature": _of(0.01), "probs": _of(0.0, 1.0, 1e-30)}),
    (td.RelaxedOneHotCategorical, {"temperature": _of(0.05), "logits": _of(-30.0, 0.0, 20.0)}),
    (td.RelaxedOneHotCategorical, {"temperature": _of(20.0), "logits": _of(-30.0, 0.0, 20.0)}),
    (td.RelaxedOneHotCategorical, {"temperature": _of(0.7), "probs": _of(0.0, 0.3, 0.7, 0.0)}),
    (td.RelaxedOneHotCategorical, {"temperature": _of(0.7), "probs": _of(0.0, 1.0)}),
]
EXTREME = pytest.mark.parametrize("cls, arguments", EXTREMES, ids=named)


@EXTREME
def test_extreme_parameters_keep_the_value(cls: Any, arguments: dict[str, Tensor]) -> None:
    law, parameters = law_for(cls, arguments)
    torch.manual_seed(3)
    assert_drawn_again(law, parameters, *(base_noise(law, parameters, FEW) for _ in range(2)))


CONCRETE = td.RelaxedOneHotCategorical
ENDS: list[tuple[type[td.Distribution], dict[str, Tensor]]] = [
    (CONCRETE, {"temperature": _of(0.7), "probs": _of(0.0, 0.3, 0.7, 0.0)}),
    (CONCRETE, {"temperature": _of(0.7), "probs": _of(0.0, 1.0)}),
    (CONCRETE, {"temperature": _of(0.02), "logits": _of(1.0, 0.0, 0.5)}),
    (td.RelaxedBernoulli, {"temperature": _of(0.7), "probs": _of(0.0, 1.0)}),
    (td.RelaxedBernoulli, {"temperature": _of(0.02), "logits": _of(-1.0, 0.0, 3.0)}),
    (td.relaxed_bernoulli.LogitRelaxedBernoulli, {"temperature": _of(0.7), "probs": _of(0.0, 1.0)}),
]


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("cls, arguments", ENDS, ids=named)
def test_values_at_ends_keep_the_law_of_their_noise(
    cls: Any, arguments: dict[str, Tensor], dtype: torch.dtype
) -> None:
    law, parameters = law_for(cls, {name: number.to(dtype) for name, number in arguments.items()})
    torch.manual_seed(4)
    noise, fresh = (base_noise(law, parameters, COUNT, dtype) for _ in range(2))
    assert_base_noise(law, parameters, law.recovered(parameters, law.draw(parameters, noise), fresh))


def test_noise_of_single_precision_is_finite_and_open_at_the_ends(explicit: Any) -> None:
    arguments = {k: v.float() if isinstance(v, Tensor) else v for k, v in explicit.arguments.items()}
    law, parameters = law_for(explicit.cls, arguments)
    torch.manual_seed(6)
    noise, fresh = (base_noise(law, parameters, FEW, torch.float32) for _ in range(2))
    noise = at_ends(noise) if law.noise == "uniform" else 2 * noise
    found = law.recovered(parameters, law.draw(parameters, noise), fresh)
    assert found.dtype == torch.float32
    assert_open(law, found)


@pytest.mark.usefixtures("compiling")
def test_it_is_traced_and_mapped(explicit: Any) -> None:
    law, parameters = law_for(explicit.cls, explicit.arguments)
    assert_traced_and_mapped(law, parameters)


def normal(*batch: int) -> td.Normal:
    return td.Normal(torch.randn(batch, dtype=F64), torch.rand(batch, dtype=F64) + 0.5)


NESTED: dict[str, Any] = {
    "independent": lambda: td.Independent(td.Independent(normal(2, 3), 1), 1),
    "tanh": lambda: td.TransformedDistribution(td.Independent(normal(2, 3), 1), [td.TanhTransform()]),
    "sigmoid": lambda: td.TransformedDistribution(normal(3), [td.SigmoidTransform()]),
    "sticks": lambda: td.TransformedDistribution(normal(2, 3), [td.StickBreakingTransform()]),
    "affine": lambda: td.TransformedDistribution(
        normal(2, 3), [td.AffineTransform(_of(1, 2, 3), -2.0), td.ExpTransform(), td.PowerTransform(_of(0.5))]
    ),
    "uniform": lambda: td.TransformedDistribution(
        td.Uniform(_of(0, 0), _of(1, 1)), [td.SigmoidTransform().inv, td.AffineTransform(_of(1, 2), 2.0)]
    ),
    "composed": lambda: td.TransformedDistribution(
        normal(2, 3),
        [
            td.ComposeTransform(
                [td.AffineTransform(_of(1), _of(2)).inv, td.IndependentTransform(td.ExpTransform(), 1)]
            )
        ],
    ),
    "half": lambda: td.TransformedDistribution(td.HalfNormal(_of(1, 2)), [td.AffineTransform(1.0, _of(3.0))]),
}


@pytest.mark.usefixtures("compiling")
@pytest.mark.parametrize("name", NESTED)
def test_transforms_are_undone(name: str) -> None:
    torch.manual_seed(8)
    law, parameters = law_of(td.Independent(NESTED[name](), 0))
    assert law.recovers
    noise, fresh = (base_noise(law, parameters, COUNT) for _ in range(2))
    assert_drawn_again(law, parameters, noise, fresh)
    found = law.recovered(parameters, law.draw(parameters, noise), fresh)
    assert_base_noise(law, parameters, found)
    compiled = torch.compile(law.recovered, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(parameters, law.draw(parameters, noise), fresh), found)


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize(
    "transform",
    [td.TanhTransform(), td.SigmoidTransform(), td.ExpTransform(), td.StickBreakingTransform()],
    ids=repr,
)
def test_ends_that_rounding_reaches_have_finite_noise(transform: td.Transform, dtype: torch.dtype) -> None:
    base = td.Normal(torch.zeros(2, dtype=dtype), torch.ones(2, dtype=dtype))
    law, parameters = law_of(td.TransformedDistribution(base, [transform]))
    noise = torch.tensor([[60.0, -60.0], [-200.0, 60.0], [-60.0, -60.0], [60.0, 60.0]], dtype=dtype)
    value = law.draw(parameters, noise)
    found = law.recovered(parameters, value, torch.zeros_like(noise))
    assert found.isfinite().all() and found.dtype == dtype
    torch.testing.assert_close(law.draw(parameters, found), value)


def test_a_small_rest_of_a_stick_keeps_its_digits() -> None:
    law, parameters = law_for(td.LogisticNormal, {"loc": _of(0.0), "scale": _of(1.0)})
    (found,) = law.recovered(parameters, _of(1 - 1e-12, 1e-12), _of(0.0)).tolist()
    assert found == pytest.approx(math.log1p(-1e-12) - math.log(1e-12), rel=1e-14)


@pytest.mark.parametrize(
    "dist",
    [
        td.TransformedDistribution(normal(3), [td.AbsTransform()]),
        td.TransformedDistribution(normal(3), [td.ComposeTransform([td.ExpTransform(), td.AbsTransform()])]),
        td.TransformedDistribution(td.Bernoulli(_of(0.3)), [td.AffineTransform(1.0, 2.0)]),
        td.Geometric(_of(0.3)),
        td.Binomial(3, _of(0.3)),
    ],
    ids=str,
)
def test_what_has_no_way_back_says_so_before_it_refuses(dist: td.Distribution) -> None:
    law, parameters = law_of(dist)
    assert not law.recovers
    noise = base_noise(law, parameters, 2)
    with pytest.raises(NotImplementedError, match="no way back from a value"):
        law.recovered(parameters, law.draw(parameters, noise), noise)


RELAXABLE = [
    (td.Bernoulli, {"logits": _of(-3.5, -1.0, 0.0, 2.0)}),
    (td.Bernoulli, {"probs": _of(0.02, 0.3, 0.5, 0.9)}),
    *(
        (cls, arguments)
        for cls in (td.Categorical, td.OneHotCategorical)
        for arguments in ({"logits": _of(3.0, 3.1, -1.0, 1.0)}, {"probs": _of(1.0, 3.0, 2.0, 0.5)})
    ),
]


@pytest.mark.parametrize("cls, arguments", RELAXABLE, ids=named)
def test_what_is_added_to_the_location_has_its_law(cls: Any, arguments: dict[str, Tensor]) -> None:
    law, parameters = law_for(cls, arguments)
    assert isinstance(law, Relaxable) and law.recovers
    torch.manual_seed(9)
    noise, fresh, other = (base_noise(law, parameters, COUNT) for _ in range(3))
    value = law.draw(parameters, noise)
    found = law.recovered(parameters, value, fresh)
    assert law.draw_standard(parameters, found).equal(value)
    batch = len(law.batch_shape(parameters))
    for ours, theirs in zip(statistics(found, batch), statistics(law.standard(other), batch), strict=True):
        for one, two in zip(ours.reshape(COUNT, -1).T, theirs.reshape(COUNT, -1).T, strict=True):
            assert scipy.stats.ks_2samp(one.numpy(), two.numpy(), method="asymp").pvalue > 1e-5


@pytest.mark.usefixtures("compiling")
@pytest.mark.parametrize("cls, arguments", RELAXABLE, ids=named)
def test_what_is_added_to_the_location_is_traced_and_mapped(cls: Any, arguments: dict[str, Tensor]) -> None:
    assert_traced_and_mapped(*law_for(cls, arguments))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, F64], ids=str)
@pytest.mark.parametrize(
    "cls, numbers",
    [
        (td.Bernoulli, (-1e4, -20.0, 0.0, 20.0, 1e4)),
        (td.Categorical, (-1e4, -20.0, 0.0, 20.0)),
        (td.OneHotCategorical, (-1e4, -20.0, 0.0, 20.0)),
    ],
)
def test_every_value_is_held_even_one_that_its_law_never_draws(
    cls: Any, numbers: tuple[float, ...], dtype: torch.dtype
) -> None:
    law, parameters = law_for(cls, {"logits": torch.tensor(numbers, dtype=dtype)})
    assert isinstance(law, Relaxable)
    torch.manual_seed(10)
    fresh = at_ends(base_noise(law, parameters, COUNT, torch.promote_types(dtype, torch.float32)))
    for single in law.support(parameters):
        value = single.expand(Size([COUNT]) + law.batch_shape(parameters) + single.shape)
        found = law.recovered(parameters, value, fresh)
        assert found.isfinite().all()
        assert law.draw_standard(parameters, found).equal(value)
