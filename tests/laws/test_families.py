"""Every law agrees with the torch class it stands for, and with itself."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor
from torch import distributions as td

from scg.laws import LAWS, Law, law_for, law_of

GRID = 4000
# torch reports every regular Wishart draw as singular.
pytestmark = pytest.mark.filterwarnings("ignore:Singular sample detected")


def taken(example: Any) -> tuple[Law, dict[str, Tensor]]:
    return law_for(example.cls, example.arguments)


def noise_for(
    law: Law, parameters: dict[str, Tensor], batch: torch.Size, dtype: Any = torch.float64
) -> Tensor:
    if law.noise == "value":
        return law.sample(parameters, batch)
    shape = law.noise_shape(parameters, batch)
    if law.noise == "normal":
        return torch.randn(shape, dtype=dtype)
    return torch.rand(shape, dtype=dtype).clamp(1e-12, 1 - 1e-12)


def values(law: Law, parameters: dict[str, Tensor], *sizes: int) -> Tensor:
    batch = torch.Size(sizes) + law.batch_shape(parameters)
    return law.draw(parameters, noise_for(law, parameters, batch))


def test_every_registered_class_has_an_example(examples: Any) -> None:
    assert {example.cls for example in examples} == set(LAWS)


def test_log_prob_is_torchs(referenced: Any) -> None:
    torch.manual_seed(0)
    law, parameters = taken(referenced)
    value = values(law, parameters, 50).detach()
    reference = referenced.cls(**referenced.arguments, validate_args=False)
    torch.testing.assert_close(
        law.log_prob(parameters, value), reference.log_prob(value), rtol=2e-6, atol=2e-6
    )


def test_log_prob_of_generalized_pareto_is_scipys() -> None:
    shape, value = torch.tensor([-0.3, 0.0, 0.4], dtype=torch.float64), torch.tensor(0.9, dtype=torch.float64)
    law, parameters = law_for(td.GeneralizedPareto, {"loc": 0.1, "scale": 0.7, "concentration": shape})
    expected = scipy.stats.genpareto.logpdf(value, shape, 0.1, 0.7)
    torch.testing.assert_close(law.log_prob(parameters, value), torch.as_tensor(expected))


def test_draws_have_the_shape_and_dtype_of_torchs(example: Any) -> None:
    law, parameters = taken(example)
    dist = example.cls(**example.arguments, validate_args=False)
    value, expected = values(law, parameters, 5), dist.sample(torch.Size([5]))
    assert value.shape == expected.shape
    assert value.dtype == expected.dtype
    assert law.batch_shape(parameters) == dist.batch_shape
    assert law.value_rank == len(dist.event_shape)
    if example.cls is td.LKJCholesky:
        with pytest.raises(NotImplementedError, match="neither a mode nor a mean"):
            law.mode(parameters)
    else:
        assert law.mode(parameters).shape == expected.shape[1:]


def test_draws_have_the_law_of_torchs_draws(example: Any) -> None:
    torch.manual_seed(1)
    law, parameters = taken(example)
    ours = values(law, parameters, GRID).detach().double().reshape(GRID, -1)
    theirs = example.cls(**example.arguments, validate_args=False).sample(torch.Size([GRID]))
    theirs = theirs.double().reshape(GRID, -1)
    for column in range(ours.shape[1]):
        assert same_law(ours[:, column], theirs[:, column]) > 1e-4


def same_law(ours: Tensor, theirs: Tensor) -> float:
    if ours.equal(ours.round()) and theirs.equal(theirs.round()):
        top = int(max(ours.max(), theirs.max()).clamp(max=50)) + 1
        counts = torch.stack([x.clamp(max=50).long().bincount(minlength=top) for x in (ours, theirs)])
        counts = counts[:, counts.sum(0) > 0]
        return 1.0 if counts.shape[1] < 2 else float(scipy.stats.chi2_contingency(counts.numpy())[1])
    return float(scipy.stats.ks_2samp(ours.numpy(), theirs.numpy()).pvalue)


def test_draws_follow_log_prob_where_support_is_finite(example: Any) -> None:
    law, parameters = taken(example)
    if not law.finite:
        with pytest.raises(NotImplementedError):
            law.support(parameters)
        return
    torch.manual_seed(2)
    support, mass = law.support(parameters), law.mass(parameters)
    drawn = values(law, parameters, GRID)
    torch.testing.assert_close(mass.sum(0), torch.ones_like(mass[0]))
    assert support.dtype == drawn.dtype
    for outcome, expected in zip(support, mass, strict=True):
        hit = drawn == outcome
        frequency = (hit.all(-1) if law.value_rank else hit).double().mean(0)
        assert ((frequency - expected).abs() <= 5 * (expected * (1 - expected) / GRID).sqrt() + 1e-9).all()


def test_mass_is_the_exponential_of_log_prob(example: Any) -> None:
    law, parameters = taken(example)
    if law.finite:
        each = [law.log_prob(parameters, value).exp() for value in law.support(parameters)]
        torch.testing.assert_close(law.mass(parameters), torch.stack(each))


def test_draws_are_attached_exactly_where_pathwise(example: Any) -> None:
    torch.manual_seed(3)
    law, parameters = taken(example)
    live = {name: tensor.clone().requires_grad_() for name, tensor in parameters.items()}
    noise = noise_for(law, parameters, law.batch_shape(parameters))
    value = law.draw(live, noise)
    assert value.requires_grad is (law.pathwise is not None)
    if law.noise == "value":
        assert value.equal(noise)
    if law.pathwise:
        gradients = torch.autograd.grad(value.sum(), list(live.values()), allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in gradients)


def test_broadcasting_of_missing_and_single_dims(example: Any) -> None:
    torch.manual_seed(4)
    law, parameters = taken(example)
    names = list(parameters)
    batch = torch.Size([4, 1]) + law.batch_shape(parameters)
    noise = noise_for(law, parameters, batch)
    for name in names:
        wider = {
            **parameters,
            name: parameters[name].expand(4, 1, *law.expand(parameters, batch)[name].shape[2:]),
        }
        assert law.batch_shape(wider) == batch
        value = law.draw(wider, noise)
        torch.testing.assert_close(value, law.draw(law.expand(parameters, batch), noise))
        torch.testing.assert_close(law.log_prob(wider, value), law.log_prob(parameters, value))
        single = values(law, parameters)[None, None]
        assert law.log_prob(wider, single).shape == batch


def test_laws_pickle_copy_and_compare_by_structure(example: Any) -> None:
    law, parameters = taken(example)
    assert pickle.loads(pickle.dumps(law)) == law
    assert copy.deepcopy(law) == law
    again = law_of(law.distribution(parameters))[0]
    assert again.family == law.family


def test_law_of_a_live_distribution_is_attached_and_the_same(example: Any) -> None:
    torch.manual_seed(5)
    live = {
        name: value.clone().requires_grad_() if isinstance(value, Tensor) else value
        for name, value in example.arguments.items()
    }
    law, parameters = law_of(example.cls(**live, validate_args=False))
    value = values(law, parameters, 3).detach()
    expected = taken(example)
    ours, theirs = law.log_prob(parameters, value), expected[0].log_prob(expected[1], value)
    torch.testing.assert_close(ours.detach(), theirs, rtol=1e-5, atol=1e-5)
    for name, tensor in live.items():
        if isinstance(tensor, Tensor) and name != "total_count":
            (gradient,) = torch.autograd.grad(ours.sum(), tensor, retain_graph=True)
            assert gradient.isfinite().all() and (gradient != 0).any()


def test_valid_parameters_have_no_violations(example: Any) -> None:
    law, parameters = taken(example)
    assert law.violations(parameters) is None
    for name in parameters:
        spoiled = {**parameters, name: torch.full_like(parameters[name], torch.nan)}
        found = law.violations(spoiled)
        assert found is not None and found.startswith(name) and "nan" in found


def test_no_outcome_is_more_likely_than_the_mode(finite: Any) -> None:
    law, parameters = taken(finite)
    mode, support = law.mode(parameters), law.support(parameters)
    apart = (1,) * (mode.dim() - law.value_rank)
    every = law.log_prob(parameters, support.view(len(support), *apart, *support.shape[1:]))
    assert bool((law.log_prob(parameters, mode) >= every.amax(0) - 1e-9).all())
