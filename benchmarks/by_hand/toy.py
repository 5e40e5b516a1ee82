"""The toy problem by hand: E (b - t)^2 over one coin b, with replicates ``[k]`` of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from benchmarks.by_hand.inner import with_slopes

T = 0.499


class Network(nn.Module):
    """A network of one number: 10 hidden units, times a scale."""

    def __init__(self) -> None:
        """Start as torch does."""
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 10), nn.Tanh(), nn.Linear(10, 1))

    def forward(self, z: Tensor) -> Tensor:
        """``[...]`` to ``[...]``."""
        value: Tensor = self.layers(torch.tanh(z).unsqueeze(-1)).squeeze(-1)
        return value


class Model(nn.Module):
    """The logit of the coin, and the parameters of the control variates."""

    def __init__(self) -> None:
        """Start at a fair coin, temperature .5 and eta 1."""
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(0.0))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.5)))
        self.log_eta = nn.Parameter(torch.tensor(0.0))
        self.net = Network()


def draw(model: Model, replicates: int, count: int) -> tuple[Tensor, ...]:
    """Uniform noise on the open interval (0, 1)."""
    noise = torch.rand(count, replicates, device=model.theta.device)
    return noise.clamp_(min=torch.finfo(noise.dtype).tiny).unbind()


def score_step(model: Model, u: Tensor, baseline: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """``(f - baseline) dlog p(b)``, whose derivative in the logit is ``b - p``."""
    at = model.theta.detach()
    b = (at + torch.logit(u) > 0).to(u.dtype)
    f = (b - T) ** 2
    factor = f if baseline is None else f - baseline(f)
    return with_gradient(f.mean(), model.theta, (factor * (b - torch.sigmoid(at))).mean())


def leave_one_out(f: Tensor) -> Tensor:
    """The mean of the other replicates."""
    return (f.sum() - f) / (len(f) - 1)


def exact_step(model: Model) -> Tensor:
    """The sum over both sides."""
    p = torch.sigmoid(model.theta)
    return p * (1 - T) ** 2 + (1 - p) * T**2


def controlled_step(model: Model, u: Tensor, w: Tensor, *, network: bool) -> Tensor:
    """REBAR, or RELAX with a network added to the relaxed cost."""
    at = model.theta.detach()
    z = at + torch.logit(u)
    b = (z > 0).to(u.dtype)
    sign = 2 * b - 1
    inner = sign * at + w.log()
    points = torch.stack((z, sign * (softplus(inner) - torch.log1p(-w))))

    def variates(points: Sequence[Tensor]) -> list[Tensor]:
        soft = torch.sigmoid(points[0] * torch.exp(-model.log_temperature))
        c = model.log_eta.exp() * (soft - T) ** 2
        return [c + model.net(points[0]) if network else c]

    (c,), (slopes,) = with_slopes(variates, [points])
    slope, slope_tilde = slopes.unbind()
    f = (b - T) ** 2
    ghat = (f - c[1]) * (b - torch.sigmoid(at)) + slope - torch.sigmoid(inner) * slope_tilde
    return with_gradient(f.mean(), model.theta, ghat.mean().detach()) + zero(ghat.square().mean())


def with_gradient(value: Tensor, theta: Tensor, gradient: Tensor) -> Tensor:
    """A value whose derivative in ``theta`` is what is given."""
    return value + zero(theta * gradient)


def zero(term: Tensor) -> Tensor:
    """Zero, with the gradient of ``term``."""
    return term - term.detach()
