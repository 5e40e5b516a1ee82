"""The derivative of every draw is minus dF/dtheta over p, and explicit ones match torch's."""

from __future__ import annotations

from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor
from torch import distributions as td

from scg.laws import Law, law_for

STEP = 1e-5
F64 = torch.float64


def derivative(law: Law, parameters: dict[str, Tensor], noise: Tensor, name: str) -> Tensor:
    live = {key: tensor.clone().requires_grad_(key == name) for key, tensor in parameters.items()}
    (slope,) = torch.autograd.grad(law.draw(live, noise).sum(), live[name])
    return slope


def test_explicit_draws_differentiate_as_finite_differences(explicit: Any) -> None:
    law, parameters = law_for(explicit.cls, explicit.arguments)
    torch.manual_seed(0)
    shape = law.noise_shape(parameters, law.batch_shape(parameters))
    noise = torch.randn(shape, dtype=F64) if law.noise == "normal" else torch.rand(shape, dtype=F64)
    weight = torch.rand_like(law.draw(parameters, noise))
    for name in parameters:
        if name in ("scale_tril", "covariance_matrix", "precision_matrix"):
            continue

        def total(tensor: Tensor, name: str = name) -> Tensor:
            return (weight * law.draw({**parameters, name: tensor}, noise)).sum()

        # Finite differences cannot cross the kink that the generalized Pareto formula has at 0.
        if name == "concentration" and explicit.cls is td.GeneralizedPareto:
            continue
        assert torch.autograd.gradcheck(
            total, parameters[name].clone().requires_grad_(), atol=1e-4, rtol=1e-4
        )
        assert law.twice


CDFS = [
    (
        td.Gamma,
        {"concentration": 0.6, "rate": 1.7},
        lambda x, p: scipy.stats.gamma.cdf(x, p["concentration"], scale=1 / p["rate"]),
    ),
    (
        td.Gamma,
        {"concentration": 7.0, "rate": 0.5},
        lambda x, p: scipy.stats.gamma.cdf(x, p["concentration"], scale=1 / p["rate"]),
    ),
    (
        td.InverseGamma,
        {"concentration": 2.5, "rate": 0.8},
        lambda x, p: scipy.stats.invgamma.cdf(x, p["concentration"], scale=p["rate"]),
    ),
    (td.Chi2, {"df": 3.3}, lambda x, p: scipy.stats.chi2.cdf(x, p["df"])),
    (
        td.Beta,
        {"concentration1": 0.8, "concentration0": 2.5},
        lambda x, p: scipy.stats.beta.cdf(x, p["concentration1"], p["concentration0"]),
    ),
    (
        td.Beta,
        {"concentration1": 6.0, "concentration0": 3.0},
        lambda x, p: scipy.stats.beta.cdf(x, p["concentration1"], p["concentration0"]),
    ),
    (
        td.StudentT,
        {"df": 2.5, "loc": 0.3, "scale": 1.4},
        lambda x, p: scipy.stats.t.cdf(x, p["df"], p["loc"], p["scale"]),
    ),
    (
        td.StudentT,
        {"df": 12.0, "loc": -0.3, "scale": 0.4},
        lambda x, p: scipy.stats.t.cdf(x, p["df"], p["loc"], p["scale"]),
    ),
    (td.FisherSnedecor, {"df1": 3.0, "df2": 7.0}, lambda x, p: scipy.stats.f.cdf(x, p["df1"], p["df2"])),
]


@pytest.mark.parametrize("cls, numbers, cdf", CDFS, ids=lambda item: getattr(item, "__name__", ""))
def test_implicit_draws_differentiate_as_their_cdf(cls: Any, numbers: dict[str, float], cdf: Any) -> None:
    torch.manual_seed(1)
    law, parameters = law_for(cls, {k: torch.tensor(v, dtype=F64) for k, v in numbers.items()})
    assert law.pathwise == "implicit" and not law.twice
    value = law.sample(parameters, torch.Size([40]))
    density = law.log_prob(parameters, value).exp()
    for name in parameters:
        full = {key: tensor.expand(40) for key, tensor in parameters.items()}
        ours = derivative(law, full, value, name)
        up, down = ({**numbers, name: numbers[name] + sign * STEP} for sign in (1, -1))
        slope = torch.as_tensor(cdf(value.numpy(), up) - cdf(value.numpy(), down)) / (2 * STEP)
        torch.testing.assert_close(ours, -slope / density, rtol=5e-3, atol=2e-3)


def test_dirichlet_differentiates_as_torchs_backward() -> None:
    torch.manual_seed(2)
    shape = torch.tensor([[0.7, 2.0, 5.0], [1.0, 1.0, 4.0]], dtype=F64, requires_grad=True)
    law, parameters = law_for(td.Dirichlet, {"concentration": shape})
    torch.manual_seed(3)
    theirs = td.Dirichlet(shape).rsample()
    weight = torch.randn_like(theirs)
    ours = law.draw(parameters, theirs.detach())
    gradients = [torch.autograd.grad((weight * x).sum(), shape)[0] for x in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_straight_through_is_a_plain_one_hot_law() -> None:
    law, parameters = law_for(
        td.OneHotCategoricalStraightThrough, {"logits": torch.zeros(3, requires_grad=True)}
    )
    assert td.OneHotCategoricalStraightThrough.has_rsample
    assert law.pathwise is None and law.finite
    assert not law.draw(parameters, torch.tensor([0.2, 0.5, 0.7])).requires_grad
