"""A VAE with layers of Normal latents: its steps by hand, for any number of layers.

Costs and credits are those of the Bernoulli VAE; a layer gives means and scales.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from benchmarks.by_hand.inner import with_slopes
from benchmarks.by_hand.vae import Noise, credits_of, cross_entropy, total

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
LEAST = 0.1


class Network(nn.Module):
    """``r_phi(z, mean, scale) = output(tanh(first(z, mean, scale)))``."""

    def __init__(self, latents: int, hidden: int) -> None:
        """Start as torch does."""
        super().__init__()
        self.first = nn.Linear(3 * latents, hidden)
        self.output = nn.Linear(hidden, 1)

    def forward(self, z: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """``[..., batch, latents]`` each to ``[..., batch]``."""
        of_z, of_context = self.first.weight.split((z.shape[-1], 2 * z.shape[-1]), 1)
        context = linear(torch.cat((mean, scale), -1), of_context, self.first.bias)
        value: Tensor = self.output(torch.tanh(linear(z, of_z) + context)).squeeze(-1)
        return value


class Gaussian(nn.Module):
    """A linear layer to a mean and a positive scale."""

    def __init__(self, below: int, above: int) -> None:
        """Start as torch does."""
        super().__init__()
        self.layer = nn.Linear(below, 2 * above)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``[..., below]`` to the mean and the scale, ``[..., above]``."""
        mean, spread = self.layer(x).chunk(2, -1)
        return mean, LEAST + softplus(spread)


class Model(nn.Module):
    """Encoders, decoders, and the networks of LAX; the prior is standard normal."""

    def __init__(self, layers: int = 1, inputs: int = 784, latents: int = 200, hidden: int = 200) -> None:
        """Start as torch does."""
        super().__init__()
        widths = list(itertools.pairwise([inputs, *[latents] * layers]))
        self.latents = latents
        self.encoders = nn.ModuleList(Gaussian(below, above) for below, above in widths)
        first = nn.Linear(latents, inputs)
        self.decoders = nn.ModuleList([first, *(Gaussian(latents, latents) for _ in range(layers - 1))])
        self.nets = nn.ModuleList(Network(latents, hidden) for _ in range(layers))


def draw(model: Model, batch: int) -> Noise:
    """Draw standard normal noise ``[batch, latents]`` for every layer."""
    weight = model.encoders[0].layer.weight
    shape = (len(model.encoders), batch, model.latents)
    return torch.randn(shape, dtype=weight.dtype, device=weight.device).unbind()


def reparam_step(model: Model, x: Tensor, noise: Noise) -> Tensor:
    """Return the cost along the path of every latent; log q of a value is that of its noise."""
    costs, below = [], x
    for layer, eps in enumerate(noise):
        mean, scale = model.encoders[layer](below)
        z = mean + scale * eps
        log_q = -(0.5 * eps.square() + scale.log()).sum(-1) - eps.shape[-1] * HALF_LOG_TWO_PI
        costs.append(log_q - log_likelihood(model, layer, below, z))
        below = z
    return (total(costs) - log_normal(below)).mean()


def score_step(model: Model, x: Tensor, noise: Noise) -> Tensor:
    """Return a loss whose gradient is the sum over layers of ``f dlog q + df``."""
    _, _, log_qs, costs = evaluated(model, x, noise)
    surrogate = total([c * log_q for c, log_q in zip(credits_of(costs), log_qs, strict=True)]).mean()
    return total(costs).mean() + (surrogate - surrogate.detach())


def lax_step(model: Model, x: Tensor, noise: Noise) -> Tensor:
    """Return the loss of LAX: ``ghat = (f - r(z)) dlog q + dr``, whose network descends its variance."""
    laws, zs, _, costs = evaluated(model, x, noise)
    detached = [(mean.detach(), scale.detach()) for mean, scale in laws]

    def variates(points: Sequence[Tensor]) -> list[Tensor]:
        return [net(p, *law) for net, p, law in zip(model.nets, points, detached, strict=True)]

    predicted, slopes = with_slopes(variates, zs)
    terms = []
    layers = zip(laws, detached, noise, credits_of(costs), predicted, slopes, strict=True)
    for (mean, scale), (_, constant), eps, credit, r, slope in layers:
        residual = (credit - r)[:, None] / constant
        of_mean = residual * eps + slope
        of_scale = residual * (eps.square() - 1) + slope * eps
        terms.append((of_mean.detach() * mean + of_scale.detach() * scale).sum())
        terms.append(of_mean.square().sum() + of_scale.square().sum())
    surrogate = total(terms) / len(x)
    return total(costs).mean() + (surrogate - surrogate.detach())


def evaluated(
    model: Model, x: Tensor, noise: Noise
) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor], list[Tensor], list[Tensor]]:
    """Return means and scales, detached latents, their log q and the costs, by layer."""
    laws, zs, log_qs, costs, below = [], [], [], [], x
    for layer, eps in enumerate(noise):
        mean, scale = model.encoders[layer](below)
        z = (mean + scale * eps).detach()
        log_q = log_normal((z - mean) / scale) - scale.log().sum(-1)
        costs.append(log_q - log_likelihood(model, layer, below, z))
        laws.append((mean, scale))
        log_qs.append(log_q)
        zs.append(z)
        below = z
    costs[-1] = costs[-1] - log_normal(below)
    return laws, zs, log_qs, costs


def log_likelihood(model: Model, layer: int, below: Tensor, z: Tensor) -> Tensor:
    """``log p(below | z)``, ``[batch]``."""
    if layer == 0:
        return -cross_entropy(model.decoders[0](z), below)
    mean, scale = model.decoders[layer](z)
    return log_normal((below - mean) / scale) - scale.log().sum(-1)


def log_normal(standard: Tensor) -> Tensor:
    """The log-density of standard normal values, summed over the last dimension."""
    return -0.5 * standard.square().sum(-1) - standard.shape[-1] * HALF_LOG_TWO_PI
