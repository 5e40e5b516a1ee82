"""LAX at a normal number: the score of what the network leaves, and the network's own path."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Gamma, Normal

import scg
from scg.estimators.protocol.facts import Axis
from tests.estimators.building import facts, of, site


def cost(x: Tensor) -> Tensor:
    return (x - 0.3) ** 3


def net(x: Tensor) -> Tensor:
    return torch.sin(2 * x) + x


@pytest.mark.parametrize("share", [None, of(1.0, 0.5, 0.25)], ids=["alike", "discounted"])
def test_one_estimate_is_that_of_the_formula(share: Tensor | None) -> None:
    loc, scale, noise = of(0.3, -0.2, 1.0), of(0.7, 1.1, 0.4), of(0.5, -1.3, 0.2)
    axes = (Axis("time", 3, is_mean=False, discount=0.5),)
    made = site(
        Normal, {"loc": loc, "scale": scale}, noise, cost, axes=axes, provided={"predict": net}, share=share
    )
    found = scg.LAX(net=net).gradient(made)

    live = {"loc": loc.clone().requires_grad_(), "scale": scale.clone().requires_grad_()}
    x = live["loc"] + live["scale"] * noise
    log_p = Normal(**live).log_prob(x.detach())
    left = (cost(x) - net(x)).detach()
    wanted = torch.autograd.grad((left * log_p + net(x)).sum(), [*live.values()])
    for name, value in zip(live, wanted, strict=True):
        assert torch.allclose(found[name], value, rtol=1e-12), name


def test_draws_without_a_second_derivative_are_refused() -> None:
    refusal = scg.LAX().refuses(facts(Gamma, {"concentration": of(2.0), "rate": of(1.0)}))
    assert refusal is not None and "no second derivative of a draw from a Gamma" in str(refusal)
    assert scg.LAX().refuses(facts(Normal, {"loc": of(0.0), "scale": of(1.0)})) is None


def test_a_network_learns_from_the_score_and_from_the_path() -> None:
    slope = torch.nn.Parameter(torch.tensor(0.8, dtype=torch.double))
    made = site(
        Normal,
        {"loc": of(0.3), "scale": of(0.7)},
        of(0.5),
        cost,
        axes=(Axis("batch", 1),),
        provided={"predict": lambda x: slope * torch.sin(x)},
        trained=(slope,),
    )
    (found,) = torch.autograd.grad(scg.LAX().gradient(made)["loc"].sum(), slope)
    score = (made.value - 0.3) / 0.7**2
    assert torch.allclose(found, (torch.cos(made.value) - torch.sin(made.value) * score).sum())
