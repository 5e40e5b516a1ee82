"""The variable under a hard value: its conditional law, its derivatives, and no infinities anywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Size, Tensor
from torch import distributions as td

from scg.laws import LAWS, Relaxable, law_for

F64 = torch.float64
COUNT = 200_000
BERNOULLI = {"logits": [-3.5, -1.0, 0.0, 2.0], "probs": [0.02, 0.3, 0.5, 0.9]}
CATEGORICAL = {
    "logits": [[0.0, 0.0, 0.0], [5.0, 3.5, 2.0], [-4.0, 0.0, 0.5], [3.0, 3.1, -1.0, 1.0]],
    "probs": [[0.7, 0.2, 0.1], [0.02, 0.03, 0.95], [1.0, 3.0, 2.0, 0.5]],
}
CASES = [
    *((td.Bernoulli, given, number) for given, numbers in BERNOULLI.items() for number in numbers),
    *(
        (cls, given, row)
        for cls in (td.Categorical, td.OneHotCategorical)
        for given, rows in CATEGORICAL.items()
        for row in rows
    ),
]
CASE = pytest.mark.parametrize("cls, given, numbers", CASES, ids=lambda item: getattr(item, "__name__", None))


def made(cls: Any, given: str, numbers: Any, dtype: torch.dtype = F64) -> tuple[Relaxable, dict[str, Tensor]]:
    law, parameters = law_for(cls, {given: torch.tensor(numbers, dtype=dtype)})
    assert isinstance(law, Relaxable)
    return law, parameters


def uniform(law: Relaxable, parameters: dict[str, Tensor], *sizes: int) -> Tensor:
    shape = law.noise_shape(parameters, Size(sizes) + law.batch_shape(parameters))
    return torch.rand(shape, dtype=F64).clamp(2.0**-53, 1 - 2.0**-53)


def step(law: Relaxable, parameters: dict[str, Tensor], z: Tensor) -> Tensor:
    """The position in ``support`` of the hard value of ``z``."""
    return (z > 0).long() if law.family == "Bernoulli" else z.argmax(-1)


def statistics(z: Tensor) -> Iterator[Tensor]:
    """Coordinates, their differences and their least, which tell joint laws of equal margins apart."""
    if z.dim() == 1:
        yield z
        return
    columns = z.unbind(-1)
    yield from columns
    yield z.amin(-1)
    yield from (a - b for i, a in enumerate(columns) for b in columns[:i])


def same_law(ours: Tensor, theirs: Tensor) -> float:
    return float(scipy.stats.ks_2samp(ours.numpy(), theirs.numpy(), method="asymp").pvalue)


def test_every_bernoulli_and_categorical_law_is_relaxable() -> None:
    laws = {cls: law_for(cls, {"probs": torch.tensor([0.5, 0.5])})[0] for cls in {case[0] for case in CASES}}
    assert all(isinstance(law, Relaxable) for law in laws.values())
    assert laws.keys() <= LAWS.keys()


@CASE
def test_the_conditional_has_the_law_of_rejection_samples(cls: Any, given: str, numbers: Any) -> None:
    torch.manual_seed(0)
    law, parameters = made(cls, given, numbers)
    z = law.perturbed(parameters, uniform(law, parameters, COUNT))
    hard = step(law, parameters, z)
    for position, value in enumerate(law.support(parameters)):
        kept = z[hard == position]
        assert len(kept) > 500
        batch = value.expand(len(kept), *value.shape)
        ours = law.conditional(parameters, batch, uniform(law, parameters, len(kept)))
        assert ours.shape == kept.shape
        assert (step(law, parameters, ours) == position).all()
        for left, right in zip(statistics(ours), statistics(kept), strict=True):
            assert same_law(left, right) > 1e-4


@CASE
def test_the_mixture_of_conditionals_has_the_law_of_z(cls: Any, given: str, numbers: Any) -> None:
    torch.manual_seed(1)
    law, parameters = made(cls, given, numbers)
    noise = [uniform(law, parameters, COUNT) for _ in range(3)]
    value = law.draw(parameters, noise[0])
    ours, z = law.conditional(parameters, value, noise[1]), law.perturbed(parameters, noise[2])
    for left, right in zip(statistics(ours), statistics(z), strict=True):
        assert same_law(left, right) > 1e-4


@CASE
def test_the_value_is_the_step_of_z_and_of_the_conditional(cls: Any, given: str, numbers: Any) -> None:
    for dtype in (torch.float32, F64):
        torch.manual_seed(2)
        law, parameters = made(cls, given, numbers, dtype)
        noise = [uniform(law, parameters, 2000).to(dtype).clamp(max=1 - 2.0**-24) for _ in range(2)]
        value = law.draw(parameters, noise[0])
        support = law.support(parameters)
        for z in (law.perturbed(parameters, noise[0]), law.conditional(parameters, value, noise[1])):
            assert z.dtype == dtype
            assert support[step(law, parameters, z)].equal(value)


@CASE
def test_derivatives_are_those_of_finite_differences(cls: Any, given: str, numbers: Any) -> None:
    torch.manual_seed(3)
    law, parameters = made(cls, given, numbers)
    noise = uniform(law, parameters, 20)
    value = law.draw(parameters, uniform(law, parameters, 20))
    temperature = torch.tensor(0.7, dtype=F64, requires_grad=True)

    def perturbed(parameter: Tensor) -> Tensor:
        return law.perturbed({given: parameter}, noise)

    def conditional(parameter: Tensor) -> Tensor:
        return law.conditional({given: parameter}, value, noise)

    def relaxed(parameter: Tensor, temperature: Tensor) -> Tensor:
        return law.relax(conditional(parameter), temperature)

    live = parameters[given].clone().requires_grad_()
    for function in (perturbed, conditional):
        assert torch.autograd.gradcheck(function, live, atol=1e-6, rtol=1e-6)
    assert torch.autograd.gradcheck(relaxed, (live, temperature), atol=1e-6, rtol=1e-6)
    assert torch.autograd.gradgradcheck(relaxed, (live, temperature), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("logit", [-2.0, 0.3, 1.5])
@pytest.mark.parametrize("given", ["logits", "probs"])
def test_the_control_variate_of_a_bernoulli_has_mean_zero(given: str, logit: float) -> None:
    nodes, weights = np.polynomial.legendre.leggauss(400)
    noise, measure = torch.as_tensor(nodes + 1) / 2, torch.as_tensor(weights) / 2
    parameter = torch.tensor(logit if given == "logits" else 1 / (1 + math.exp(-logit)), dtype=F64)
    live = parameter.requires_grad_()
    law, parameters = law_for(td.Bernoulli, {given: live})
    assert isinstance(law, Relaxable)

    def mean_slope(z: Tensor) -> tuple[Tensor, Tensor]:
        mean = measure @ (law.relax(z, 0.5) - 0.2).square()
        return mean.detach(), torch.autograd.grad(mean, live)[0]

    total = mean_slope(law.perturbed(parameters, noise))[1]
    for value, mass in zip(law.support(parameters), law.mass(parameters).detach(), strict=True):
        (score,) = torch.autograd.grad(law.log_prob(parameters, value), live)
        mean, slope = mean_slope(law.conditional(parameters, value.expand(noise.shape), noise))
        total = total - mass * (mean * score + slope)
    assert abs(total.item()) < 1e-10


def test_a_gap_beyond_torchs_softplus_threshold_keeps_its_digits() -> None:
    drop = math.log1p(math.exp(22.0))
    half, flat = torch.tensor(0.5, dtype=F64), math.log(math.log(2))
    law, parameters = made(td.Bernoulli, "logits", 22 + math.log(2))
    z = law.conditional(parameters, torch.ones((), dtype=F64), half)
    assert z.item() == pytest.approx(drop + math.log(2), abs=1e-13)
    law, parameters = made(td.Categorical, "logits", [-22.0, 0.0])
    z = law.conditional(parameters, torch.tensor(1), half.expand(2))
    lowered = math.log1p(math.exp(22 + math.log1p(math.exp(-22))))
    assert z.tolist() == pytest.approx([-flat - lowered, -flat], abs=1e-13)


EXTREMES = [
    (td.Bernoulli, "logits", [40.0, -40.0, 1e4, -1e4, math.inf, -math.inf]),
    (td.Bernoulli, "probs", [0.0, 1.0, 0.5]),
    *(
        (cls, given, rows)
        for cls in (td.Categorical, td.OneHotCategorical)
        for given, rows in (
            ("logits", [[40.0, -40.0, 0.0], [1e4, -1e4, 0.0], [1e4, 1e4, -1e4], [0.0, -math.inf, 0.0]]),
            ("probs", [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.0, 3.0, 0.0]]),
        )
    ),
]
EXTREME = pytest.mark.parametrize(
    "cls, given, numbers", EXTREMES, ids=lambda item: getattr(item, "__name__", None)
)


def ends(law: Relaxable, parameters: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
    """Noise at every combination of the ends and the middle of the open unit interval."""
    last = 1 - (2.0**-53 if dtype == F64 else 2.0**-24)
    grid = torch.tensor([2.0**-53, 0.5, last], dtype=dtype)
    event = law.noise_shape(parameters, Size())
    rows = torch.cartesian_prod(*[grid] * event.numel()) if event else grid
    shape = law.noise_shape(parameters, Size([len(rows)]) + law.batch_shape(parameters))
    return rows.reshape(len(rows), *(1,) * (len(shape) - 1 - len(event)), *event).expand(shape).contiguous()


@EXTREME
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64], ids=str)
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_nothing_is_infinite(
    cls: Any, given: str, numbers: Any, dtype: torch.dtype, temperature: float
) -> None:
    law, parameters = made(cls, given, numbers, dtype)
    wide = torch.promote_types(dtype, torch.float32)
    noise = ends(law, parameters, wide)
    values = [value.expand(*law.batch_shape(parameters), *value.shape) for value in law.support(parameters)]
    values = [value.expand(len(noise), *value.shape) for value in values]
    heat = torch.tensor(temperature, dtype=wide, requires_grad=True)
    live = parameters[given].clone().requires_grad_()
    for z in (
        law.perturbed({given: live}, noise),
        *(law.conditional({given: live}, value, noise) for value in values),
    ):
        assert z.dtype == wide and z.isfinite().all()
        soft = law.relax(z, heat)
        cost = (soft.square() * torch.arange(1, z.numel() + 1).reshape(z.shape)).mean() + (
            z / 100
        ).square().mean()
        first = torch.autograd.grad(cost, (live, heat), create_graph=True)
        second = torch.autograd.grad(first[0].sum() + first[1], (live, heat))
        assert all(tensor.isfinite().all() for tensor in (soft, *first, *second))


@EXTREME
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_the_step_holds_at_the_ends_of_the_noise(
    cls: Any, given: str, numbers: Any, dtype: torch.dtype
) -> None:
    law, parameters = made(cls, given, numbers, dtype)
    noise = ends(law, parameters, dtype)
    value = law.draw(parameters, noise)
    support = law.support(parameters)
    assert support[step(law, parameters, law.perturbed(parameters, noise))].equal(value)
    assert not law.log_prob(parameters, value).isneginf().any()
    z = law.conditional(parameters, value, noise)
    if cls is td.Bernoulli:
        assert (z > 0).to(dtype).equal(value)
    else:
        # An equal is rounding: the true gap is below exp(-16).
        index = value.argmax(-1) if law.value_rank else value
        assert z.gather(-1, index.unsqueeze(-1)).equal(z.amax(-1, keepdim=True))


@pytest.mark.parametrize("cls", [td.Bernoulli, td.Categorical, td.OneHotCategorical])
def test_a_temperature_has_batch_shape(cls: Any) -> None:
    torch.manual_seed(4)
    numbers = torch.randn((2, 3) if cls is td.Bernoulli else (2, 3, 4)).tolist()
    law, parameters = made(cls, "logits", numbers)
    z = law.perturbed(parameters, uniform(law, parameters))
    heat = torch.rand(2, 3, dtype=F64) + 0.2
    ours = law.relax(z, heat)
    assert ours.shape == z.shape
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(ours[i, j], law.relax(z[i, j], float(heat[i, j])))
    torch.testing.assert_close(law.relax(z, heat[0])[1, 2], law.relax(z[1, 2], float(heat[0, 2])))
    torch.testing.assert_close(law.relax(z, heat[0, 0]), law.relax(z, float(heat[0, 0])))


@CASE
def test_a_cold_relaxation_is_the_value_of_the_soft_law(cls: Any, given: str, numbers: Any) -> None:
    torch.manual_seed(5)
    law, parameters = made(cls, given, numbers)
    noise = uniform(law, parameters, 100)
    value, z = law.draw(parameters, noise), law.perturbed(parameters, noise)
    soft = law.relax(z, 1e-9)
    torch.testing.assert_close(law.soft.log_prob(parameters, soft), law.log_prob(parameters, value))
    assert law.soft.log_prob(parameters, law.relax(z, 0.5)).shape == (100,)
    assert law.soft.value_rank == z.dim() - 1


@pytest.mark.parametrize("cls", [td.Categorical, td.OneHotCategorical])
def test_parameters_and_values_broadcast_against_the_noise(cls: Any) -> None:
    torch.manual_seed(6)
    law, parameters = made(cls, "logits", [[0.5, -1.0, 2.0]])
    noise = uniform(law, {"logits": torch.zeros(5, 4, 3)})
    value = law.draw(parameters, uniform(law, parameters, 5))
    ours = law.conditional(parameters, value, noise)
    assert ours.shape == (5, 4, 3)
    for column in range(4):
        expected = law.conditional(parameters, value, noise[:, column : column + 1])
        torch.testing.assert_close(ours[:, column : column + 1], expected)


@CASE
def test_the_way_back_from_both_points_is_that_of_their_derivatives(
    cls: Any, given: str, numbers: Any
) -> None:
    torch.manual_seed(4)
    law, parameters = made(cls, given, numbers)
    free, tied = (uniform(law, parameters, 5) for _ in range(2))
    value = law.draw(parameters, free)
    full = {given: parameters[given].expand(5, *parameters[given].shape)}
    points, back = law.points(full, law.standard(free), value, tied)
    live = {given: full[given].clone().requires_grad_()}
    wanted = torch.stack((law.perturbed(live, free), law.conditional(live, value, tied)))
    assert torch.allclose(points, wanted.detach())
    slopes = torch.randn_like(points)
    (gradient,) = torch.autograd.grad(wanted, live[given], slopes)
    assert torch.allclose(back(slopes)[given], gradient)
