"""The continuous relaxations of Bernoulli and categorical variables, and the continuous Bernoulli."""

from __future__ import annotations

import torch
from torch import Size, Tensor
from torch import distributions as td
from torch.nn.functional import softplus

from scg.laws.categorical import log_simplex
from scg.laws.elementary import Formulas
from scg.laws.law import Parameters
from scg.laws.numbers import INFINITY, gumbel, log_both, logistic, opened


def _logits(p: Parameters) -> Tensor:
    if "logits" in p:
        return p["logits"]
    log_p, log_q = log_both(p["probs"])
    return log_p - log_q


def _log_simplex(p: Parameters) -> Tensor:
    return torch.log_softmax(p["logits"], -1) if "logits" in p else log_simplex(p["probs"])


def _logit_relaxed_draw(p: Parameters, u: Tensor) -> Tensor:
    return (_logits(p) + logistic(u)) / p["temperature"]


def _logit_relaxed_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    """A certain value is the draw of any noise."""
    logits = _logits(p)
    noise = opened(torch.sigmoid(p["temperature"] * value - logits))
    return torch.where(logits.isinf(), fresh, noise)


def _logit_relaxed_log_prob(p: Parameters, value: Tensor) -> Tensor:
    temperature = p["temperature"]
    gap = _logits(p) - value * temperature
    return temperature.log() + gap - 2 * softplus(gap)


def _relaxed_draw(p: Parameters, u: Tensor) -> Tensor:
    return torch.sigmoid(_logit_relaxed_draw(p, u))


def _relaxed_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    """What rounding took to an end is the draw of all noise beyond some, of which fresh noise takes one."""
    inner = opened(value)
    noise = torch.sigmoid(p["temperature"] * logistic(inner) - _logits(p))
    low, high = value < inner, value > inner
    beyond = torch.where(high, noise + (1 - noise) * fresh, noise)
    return opened(torch.where(low, noise * fresh, beyond))


def _relaxed_log_prob(p: Parameters, value: Tensor) -> Tensor:
    bounds = torch.finfo(value.dtype)
    inner = value.clamp(bounds.tiny, 1 - bounds.eps)
    log, log_rest = inner.log(), torch.log1p(-inner)
    return _logit_relaxed_log_prob(p, log - log_rest) - log - log_rest


def _concrete_draw(p: Parameters, u: Tensor) -> Tensor:
    return torch.softmax((_log_simplex(p) + gumbel(u)) / p["temperature"], -1)


def _concrete_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    """``-log u_i`` are exponential times: the value tells their shares, and fresh noise their scale.

    Given the shares, their sum is one of as many fresh times as there are outcomes. An outcome that is
    impossible, or that rounding took to 0, has only a least time: it tells nothing else of the scale, and
    waits a fresh time beyond, as times have no memory.
    """
    log_p, tiny = _log_simplex(p), torch.finfo(value.dtype).tiny
    told = (value > tiny) & (log_p > -INFINITY)
    share = torch.softmax(log_p - p["temperature"] * value.clamp(min=tiny).log(), -1)
    times = -fresh.log()
    scale = torch.where(told, times, 0.0).sum(-1, keepdim=True)
    return opened(torch.exp(-(scale * share + torch.where(told, 0.0, times))))


def _concrete_log_prob(p: Parameters, value: Tensor) -> Tensor:
    temperature = p["temperature"]
    log_p, log = _log_simplex(p), value.clamp(min=torch.finfo(value.dtype).tiny).log()
    score = log_p - temperature * log
    count = score.shape[-1]
    each = torch.log_softmax(score, -1) - log + temperature.log() * ((count - 1) / count)
    return each.sum(-1) + torch.lgamma(score.new_tensor(float(count)))


def _outcomes(p: Parameters) -> Size:
    return p["logits" if "logits" in p else "probs"].shape[-1:]


def _continuous_draw(p: Parameters, u: Tensor) -> Tensor:
    """Invert ``F(x) = expm1(l x) / expm1(l)`` with ``l <= 0``, mirrored above 0, a series near it."""
    logits = _logits(p)
    positive, flat = logits > 0, logits.abs() < 1e-2
    down = torch.where(flat, -1.0, -logits.abs())
    mirrored = torch.where(positive, 1 - u, u)
    bent = torch.log1p(mirrored * torch.expm1(down)) / down
    spread, small = u * (1 - u), torch.where(flat, logits, 0.0)
    series = 1 / 2 + small * (1 - 2 * u) / 6 + small.square() * (1 - 6 * spread) / 24
    near = u + small * spread * series
    return torch.where(flat, near, torch.where(positive, 1 - bent, bent))


def _continuous_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    """``F(x)``, for ``l > 0`` with ``exp(-l)`` taken out of both its terms."""
    logits = _logits(p)
    flat = logits == 0
    down = torch.where(flat, -1.0, -logits.abs())
    unit = torch.expm1(down * value) / torch.expm1(down)
    bent = torch.where(logits > 0, torch.exp(down * (1 - value)) * unit, unit)
    return opened(torch.where(flat, value, bent))


def _continuous_log_prob(p: Parameters, value: Tensor) -> Tensor:
    """``l (x - 1/2) - log(2 sinh(|l|/2) / |l|)``, with a series near ``l = 0``."""
    logits = _logits(p)
    flat = logits.abs() < 1e-2
    size = torch.where(flat, 1.0, logits.abs())
    far = size / 2 + torch.log(-torch.expm1(-size) / size)
    square = torch.where(flat, logits, 0.0).square()
    near = square / 24 - square.square() / 2880
    return logits * (value - 0.5) - torch.where(flat, near, far)


CONTINUOUS_BERNOULLI = Formulas(
    td.ContinuousBernoulli,
    _continuous_log_prob,
    _continuous_draw,
    "uniform",
    reach="unit",
    recovered=_continuous_recovered,
)
RELAXED_BERNOULLI = Formulas(
    td.RelaxedBernoulli,
    _relaxed_log_prob,
    _relaxed_draw,
    "uniform",
    reach="unit",
    recovered=_relaxed_recovered,
)
LOGIT_RELAXED_BERNOULLI = Formulas(
    td.relaxed_bernoulli.LogitRelaxedBernoulli,
    _logit_relaxed_log_prob,
    _logit_relaxed_draw,
    "uniform",
    reach="reals",
    recovered=_logit_relaxed_recovered,
)
RELAXED_ONE_HOT_CATEGORICAL = Formulas(
    td.RelaxedOneHotCategorical,
    _concrete_log_prob,
    _concrete_draw,
    "uniform",
    ranks=(("probs", 1), ("logits", 1), ("temperature", 1)),
    value_rank=1,
    noise_event=_outcomes,
    recovered=_concrete_recovered,
)
