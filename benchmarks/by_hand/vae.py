"""A VAE with layers of Bernoulli latents: its steps by hand, for any number of layers.

Layer l has b_l ~ q(b_l | b_{l-1}), b_{-1} = x, and is charged with the costs f_l, ..., f_L of
f_l = log q(b_l | b_{l-1}) - log p(b_{l-1} | b_l), the last less log p(b_L).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear, softplus

from benchmarks.by_hand.inner import with_slopes

Noise = Sequence[Tensor]
Baseline = Callable[[Tensor], Tensor]


class Network(nn.Module):
    """``r_phi(z, logits) = scale output(tanh(first(tanh z, logits)))``."""

    def __init__(self, latents: int, hidden: int) -> None:
        """Start at scale 1."""
        super().__init__()
        self.first = nn.Linear(2 * latents, hidden)
        self.output = nn.Linear(hidden, 1)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, z: Tensor, logits: Tensor) -> Tensor:
        """``[..., batch, latents]`` and ``[batch, latents]`` to ``[..., batch]``."""
        # What the first layer makes of the logits is the same at every z.
        of_z, of_logits = self.first.weight.split(logits.shape[-1], 1)
        hidden = torch.tanh(linear(torch.tanh(z), of_z) + linear(logits, of_logits, self.first.bias))
        value: Tensor = self.scale * self.output(hidden).squeeze(-1)
        return value


class Model(nn.Module):
    """The parameters: encoders, decoders and prior of the model, then those of the control variates."""

    def __init__(self, layers: int = 1, inputs: int = 784, latents: int = 200, hidden: int = 200) -> None:
        """Start at temperature .5 and eta 1."""
        super().__init__()
        widths = list(itertools.pairwise([inputs, *[latents] * layers]))
        self.encoders = nn.ModuleList(nn.Linear(below, above) for below, above in widths)
        self.decoders = nn.ModuleList(nn.Linear(above, below) for below, above in widths)
        self.prior = nn.Parameter(torch.zeros(latents))
        self.log_temperature = nn.Parameter(torch.full((layers,), math.log(0.5)))
        self.log_eta = nn.Parameter(torch.zeros(layers))
        self.nets = nn.ModuleList(Network(latents, hidden) for _ in range(layers))

    @property
    def layers(self) -> int:
        """The number of layers of latents."""
        return len(self.encoders)


def draw(model: Model, batch: int, count: int) -> Noise:
    """Draw ``count`` tensors ``[batch, latents]``, uniform on the open interval (0, 1)."""
    prior = model.prior
    noise = torch.rand(count, batch, len(prior), dtype=prior.dtype, device=prior.device)
    return noise.clamp_(min=torch.finfo(noise.dtype).tiny).unbind()


def score_step(model: Model, x: Tensor, us: Noise, baselines: Sequence[Baseline] | None = None) -> Tensor:
    """Return a loss whose gradient is the sum over layers of ``(f - baseline) dlog q + df``."""
    logits, _, bs = sampled(model, x, us)
    costs, log_qs = costs_of(model, x, logits, bs)
    terms = []
    for layer, (credit, log_q) in enumerate(zip(credits_of(costs), log_qs, strict=True)):
        factor = credit if baselines is None else credit - baselines[layer](credit)
        terms.append((factor * log_q).mean())
    surrogate = total(terms)
    return total(costs).mean() + (surrogate - surrogate.detach())


class MovingAverage:
    """The running mean of past credit, which starts without a bias towards 0."""

    def __init__(self, decay: float = 0.9) -> None:
        """Remember nothing yet."""
        self.decay, self.total, self.mass = decay, torch.zeros(()), 0.0

    def __call__(self, credit: Tensor) -> Tensor:
        """Return the mean of the past, and remember the credit."""
        mean = self.total / max(self.mass, 1 - self.decay)
        self.total = self.decay * self.total + (1 - self.decay) * credit.mean()
        self.mass = self.decay * self.mass + (1 - self.decay)
        return mean


def leave_one_out(credit: Tensor) -> Tensor:
    """The mean of the other replicates ``[replicates, batch]``."""
    return (credit.sum(0) - credit) / (len(credit) - 1)


def controlled_step(model: Model, x: Tensor, us: Noise, ws: Noise, *, network: bool) -> Tensor:
    """Return a loss whose ``backward`` leaves the gradients of the model and of the control variates.

    In the logits of each layer, ``ghat = (f(b) - c(zt)) dlog q(b) + dc(z) - dc(zt)`` with ``c`` the relaxed
    cost times eta, for RELAX with ``r_phi`` added; the parameters of ``c`` descend ``sum |ghat|^2 / batch``
    (Tucker et al., 2017; Grathwohl et al., 2018).
    """
    logits, zs, bs = sampled(model, x, us)
    at = [each.detach() for each in logits]
    inner = [(2 * b - 1) * a + w.log() for a, b, w in zip(at, bs, ws, strict=True)]
    tied = [(2 * b - 1) * (softplus(i) - torch.log1p(-w)) for b, i, w in zip(bs, inner, ws, strict=True)]
    costs, _ = costs_of(model, x, logits, bs)

    def variates(points: Sequence[Tensor]) -> list[Tensor]:
        found = relaxed_costs(model, x, us, at, bs, points)
        if not network:
            return found
        return [c + net(p, a) for c, net, p, a in zip(found, model.nets, points, at, strict=True)]

    points = [torch.stack(pair) for pair in zip(zs, tied, strict=True)]
    controls, slopes = with_slopes(variates, points)
    terms = []
    layers = zip(logits, at, bs, inner, credits_of(costs), controls, slopes, strict=True)
    for attached, a, b, i, credit, c, (slope, slope_tilde) in layers:
        # dz/dlogits is 1 and dzt/dlogits is sigmoid(inner): constants that no second backward crosses.
        ghat = (credit - c[1])[:, None] * (b - torch.sigmoid(a)) + (slope - torch.sigmoid(i) * slope_tilde)
        # c reads the model and the logits detached: the variance reaches the control parameters alone.
        terms.append((ghat.detach() * attached).sum() + ghat.square().sum())
    surrogate = total(terms) / len(x)
    return total(costs).mean() + (surrogate - surrogate.detach())


def total(terms: Sequence[Tensor]) -> Tensor:
    """The sum of tensors."""
    return functools.reduce(torch.add, terms)


def sampled(model: Model, x: Tensor, us: Noise) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return the logits of every layer, the logistic variables z, and the latents, their signs."""
    logits, zs, bs, below = [], [], [], x
    for encoder, u in zip(model.encoders, us, strict=True):
        logits.append(encoder(below))
        zs.append(logits[-1].detach() + logistic(u))
        below = (zs[-1] > 0).to(x.dtype)
        bs.append(below)
    return logits, zs, bs


def logistic(u: Tensor) -> Tensor:
    """The logit of uniform noise."""
    return u.log() - torch.log1p(-u)


def costs_of(
    model: Model, x: Tensor, logits: list[Tensor], bs: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return ``f_l`` and ``log q(b_l | b_{l-1})`` of every layer, ``[..., batch]``."""
    below, costs, log_qs = x, [], []
    for logit, b, decoder in zip(logits, bs, model.decoders, strict=True):
        log_qs.append(-cross_entropy(logit, b))
        costs.append(log_qs[-1] + cross_entropy(decoder(b), below))
        below = b
    costs[-1] = costs[-1] - (below @ model.prior - softplus(model.prior).sum())
    return costs, log_qs


def credits_of(costs: list[Tensor]) -> list[Tensor]:
    """Return, for every layer, the sum of its cost and those above, detached."""
    summed = itertools.accumulate((cost.detach() for cost in reversed(costs)), torch.add)
    return list(summed)[::-1]


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """``-log p(targets)``, ``[..., batch, n]`` to ``[..., batch]``."""
    logits, targets = torch.broadcast_tensors(logits, targets)
    return binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(-1)


def relaxed_costs(
    model: Model, x: Tensor, us: Noise, at: list[Tensor], bs: list[Tensor], points: Sequence[Tensor]
) -> list[Tensor]:
    """``eta f(sigmoid(z / temperature))`` at the points of each layer, ``[2, batch]``, layers above redrawn.

    Every layer is evaluated once, at its own two points and at those that come from the layers below.
    """
    heat = torch.exp(-model.log_temperature).repeat_interleave(2)[:, None, None]
    prior, last = model.prior.detach(), model.layers - 1
    totals: list[Tensor] = []
    logits, z, soft, below, hard = at[0], points[0], x, x, x
    for layer, b in enumerate(bs):
        if layer:
            encoded = linear(soft, *frozen(model.encoders[layer]))
            logits = torch.cat((encoded, at[layer].expand(2, *at[layer].shape)))
            z = torch.cat((encoded + logistic(us[layer]), points[layer]))
            below = torch.cat((soft, hard.expand(2, *hard.shape)))
        soft = torch.sigmoid(z * heat[: len(z)])
        rate = (soft * (logits - prior if layer == last else logits)).sum(-1) - softplus(logits).sum(-1)
        if layer == last:
            rate = rate + softplus(prior).sum()
        *above, own = (rate + cross_entropy(linear(soft, *frozen(model.decoders[layer])), below)).split(2)
        totals = [*map(torch.add, totals, above), own]
        hard = b
    return [eta * total for eta, total in zip(model.log_eta.exp(), totals, strict=True)]


def frozen(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """The weight and the bias of a layer, detached."""
    return layer.weight.detach(), layer.bias.detach()


def enumerated_step(model: Model, x: Tensor) -> Tensor:
    """Return the exact expected cost, layer by layer from the marginals of the layer below.

    One pass over all codes of a layer serves the whole batch.
    """
    codes = all_codes(len(model.prior)).to(x)
    terms, marginal, below = [], torch.ones((), device=x.device), x
    for layer, (encoder, decoder) in enumerate(zip(model.encoders, model.decoders, strict=True)):
        log_q = log_masses(encoder(below), codes)
        f = log_q - log_masses(decoder(codes), below).T
        if layer == model.layers - 1:
            f = f - log_masses(model.prior, codes)
        q = log_q.exp()
        expected = (q * f).sum(-1)
        terms.append(expected.sum() if layer == 0 else (marginal @ expected).sum())
        marginal = q if layer == 0 else marginal @ q
        below = codes
    return total(terms) / len(x)


def all_codes(bits: int) -> Tensor:
    """All ``[2**bits, bits]`` zeros and ones."""
    return torch.cartesian_prod(*[torch.tensor((0.0, 1.0))] * bits).view(-1, bits)


def log_masses(logits: Tensor, values: Tensor) -> Tensor:
    """``log p(value)`` for every row of logits ``[..., n]`` and of values ``[m, n]``: ``[..., m]``."""
    return logits @ values.T - softplus(logits).sum(-1, keepdim=True)
