"""The continuous relaxations of Bernoulli and categorical variables, and the continuous Bernoulli."""

from __future__ import annotations

import torch
from torch import Size, Tensor
from torch import distributions as td
from torch.nn.functional import softplus

from scg.laws.categorical import log_simplex
from scg.laws.elementary import Formulas
from scg.laws.law import Parameters
from scg.laws.numbers import gumbel, log_both, logistic


def _logits(p: Parameters) -> Tensor:
    if "logits" in p:
        return p["logits"]
    log_p, log_q = log_both(p["probs"])
    return log_p - log_q


def _log_simplex(p: Parameters) -> Tensor:
    return torch.log_softmax(p["logits"], -1) if "logits" in p else log_simplex(p["probs"])


def _logit_relaxed_draw(p: Parameters, u: Tensor) -> Tensor:
    return (_logits(p) + logistic(u)) / p["temperature"]


def _logit_relaxed_log_prob(p: Parameters, value: Tensor) -> Tensor:
    temperature = p["temperature"]
    gap = _logits(p) - value * temperature
    return temperature.log() + gap - 2 * softplus(gap)


def _relaxed_draw(p: Parameters, u: Tensor) -> Tensor:
    return torch.sigmoid(_logit_relaxed_draw(p, u))


def _relaxed_log_prob(p: Parameters, value: Tensor) -> Tensor:
    bounds = torch.finfo(value.dtype)
    inner = value.clamp(bounds.tiny, 1 - bounds.eps)
    log, log_rest = inner.log(), torch.log1p(-inner)
    return _logit_relaxed_log_prob(p, log - log_rest) - log - log_rest


def _concrete_draw(p: Parameters, u: Tensor) -> Tensor:
    return torch.softmax((_log_simplex(p) + gumbel(u)) / p["temperature"], -1)


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
    td.ContinuousBernoulli, _continuous_log_prob, _continuous_draw, "uniform", reach="unit"
)
RELAXED_BERNOULLI = Formulas(td.RelaxedBernoulli, _relaxed_log_prob, _relaxed_draw, "uniform", reach="unit")
LOGIT_RELAXED_BERNOULLI = Formulas(
    td.relaxed_bernoulli.LogitRelaxedBernoulli,
    _logit_relaxed_log_prob,
    _logit_relaxed_draw,
    "uniform",
    reach="reals",
)
RELAXED_ONE_HOT_CATEGORICAL = Formulas(
    td.RelaxedOneHotCategorical,
    _concrete_log_prob,
    _concrete_draw,
    "uniform",
    ranks=(("probs", 1), ("logits", 1), ("temperature", 1)),
    value_rank=1,
    noise_event=_outcomes,
)
