"""The laws of uniform noise with an explicit, differentiable map, but for the relaxations."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch import distributions as td

from scg.laws.elementary import Formulas
from scg.laws.law import Parameters
from scg.laws.numbers import INFINITY, gumbel, opened


def _uniform_draw(p: Parameters, u: Tensor) -> Tensor:
    return p["low"] + (p["high"] - p["low"]) * u


def _uniform_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    return opened((value - p["low"]) / (p["high"] - p["low"]))


def _uniform_log_prob(p: Parameters, value: Tensor) -> Tensor:
    inside = (value >= p["low"]) & (value <= p["high"])
    return torch.where(inside, -torch.log(p["high"] - p["low"]), -INFINITY)


def _exponential_draw(p: Parameters, u: Tensor) -> Tensor:
    return -u.log() / p["rate"]


def _exponential_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    return opened(torch.exp(-p["rate"] * value))


def _exponential_log_prob(p: Parameters, value: Tensor) -> Tensor:
    return p["rate"].log() - p["rate"] * value


def _laplace_draw(p: Parameters, u: Tensor) -> Tensor:
    centred = 2 * u - 1
    return p["loc"] - p["scale"] * (centred.sign() * torch.log1p(-centred.abs()))


def _laplace_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    z = (value - p["loc"]) / p["scale"]
    tail = torch.exp(-z.abs()) / 2
    return opened(torch.where(z < 0, tail, 1 - tail))


def _laplace_log_prob(p: Parameters, value: Tensor) -> Tensor:
    return -torch.log(2 * p["scale"]) - (value - p["loc"]).abs() / p["scale"]


def _cauchy_draw(p: Parameters, u: Tensor) -> Tensor:
    return p["loc"] + p["scale"] * torch.tan(math.pi * (u - 0.5))


def _cauchy_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    return opened(0.5 + torch.atan((value - p["loc"]) / p["scale"]) / math.pi)


def _cauchy_log_prob(p: Parameters, value: Tensor) -> Tensor:
    scale = p["scale"]
    return -math.log(math.pi) - scale.log() - torch.log1p(((value - p["loc"]) / scale).square())


def _half_cauchy_draw(p: Parameters, u: Tensor) -> Tensor:
    return p["scale"] * torch.tan(math.pi / 2 * u)


def _half_cauchy_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    return opened(2 / math.pi * torch.atan(value / p["scale"]))


def _half_cauchy_log_prob(p: Parameters, value: Tensor) -> Tensor:
    scale = p["scale"]
    inside = math.log(2 / math.pi) - scale.log() - torch.log1p((value / scale).square())
    return torch.where(value >= 0, inside, -INFINITY)


def _gumbel_draw(p: Parameters, u: Tensor) -> Tensor:
    return p["loc"] + p["scale"] * gumbel(u)


def _gumbel_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    return opened(torch.exp(-torch.exp((p["loc"] - value) / p["scale"])))


def _gumbel_log_prob(p: Parameters, value: Tensor) -> Tensor:
    y = (p["loc"] - value) / p["scale"]
    return y - y.exp() - p["scale"].log()


def _weibull_draw(p: Parameters, u: Tensor) -> Tensor:
    return p["scale"] * (-u.log()) ** (1 / p["concentration"])


def _weibull_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    return opened(torch.exp(-((value / p["scale"]) ** p["concentration"])))


def _weibull_log_prob(p: Parameters, value: Tensor) -> Tensor:
    scale, shape = p["scale"], p["concentration"]
    ratio = value / scale
    return shape.log() - scale.log() + (shape - 1) * ratio.log() - ratio**shape


def _pareto_draw(p: Parameters, u: Tensor) -> Tensor:
    return p["scale"] * torch.exp(-u.log() / p["alpha"])


def _pareto_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    excess = (value - p["scale"]) / p["scale"]
    return opened(torch.exp(-p["alpha"] * torch.log1p(excess)))


def _pareto_log_prob(p: Parameters, value: Tensor) -> Tensor:
    scale, alpha = p["scale"], p["alpha"]
    inside = alpha.log() + alpha * scale.log() - (alpha + 1) * value.log()
    return torch.where(value >= scale, inside, -INFINITY)


def _generalized_pareto_draw(p: Parameters, u: Tensor) -> Tensor:
    shape = p["concentration"]
    flat = shape == 0
    bent = torch.where(flat, 1.0, shape)
    standard = torch.where(flat, -u.log(), torch.expm1(-bent * u.log()) / bent)
    return p["loc"] + p["scale"] * standard


def _generalized_pareto_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    shape = p["concentration"]
    flat = shape == 0
    bent = torch.where(flat, 1.0, shape)
    z = (value - p["loc"]) / p["scale"]
    tail = torch.where(flat, z, torch.log1p((bent * z).clamp(min=-1)) / bent)
    return opened(torch.exp(-tail))


def _generalized_pareto_log_prob(p: Parameters, value: Tensor) -> Tensor:
    shape = p["concentration"]
    flat = shape == 0
    bent = torch.where(flat, 1.0, shape)
    z = (value - p["loc"]) / p["scale"]
    inside = (z >= 0) & (1 + shape * z >= 0)
    tail = torch.where(flat, z, (1 / bent + 1) * torch.log1p(bent * torch.where(inside, z, 0.0)))
    return torch.where(inside, -p["scale"].log() - tail, -INFINITY)


def _kumaraswamy_draw(p: Parameters, u: Tensor) -> Tensor:
    survival = u.log() / p["concentration0"]
    return torch.exp(torch.log(-torch.expm1(survival)) / p["concentration1"])


def _kumaraswamy_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    survival = torch.log(-torch.expm1(p["concentration1"] * value.log()))
    return opened(torch.exp(p["concentration0"] * survival))


def _kumaraswamy_log_prob(p: Parameters, value: Tensor) -> Tensor:
    a, b = p["concentration1"], p["concentration0"]
    log = value.log()
    return a.log() + b.log() + (a - 1) * log + (b - 1) * torch.log(-torch.expm1(a * log))


UNIFORM = Formulas(
    td.Uniform,
    _uniform_log_prob,
    _uniform_draw,
    "uniform",
    movers=("low", "high"),
    recovered=_uniform_recovered,
)
EXPONENTIAL = Formulas(
    td.Exponential,
    _exponential_log_prob,
    _exponential_draw,
    "uniform",
    reach="half-line",
    recovered=_exponential_recovered,
)
LAPLACE = Formulas(
    td.Laplace, _laplace_log_prob, _laplace_draw, "uniform", reach="reals", recovered=_laplace_recovered
)
CAUCHY = Formulas(
    td.Cauchy, _cauchy_log_prob, _cauchy_draw, "uniform", reach="reals", recovered=_cauchy_recovered
)
HALF_CAUCHY = Formulas(
    td.HalfCauchy,
    _half_cauchy_log_prob,
    _half_cauchy_draw,
    "uniform",
    reach="half-line",
    recovered=_half_cauchy_recovered,
)
GUMBEL = Formulas(
    td.Gumbel, _gumbel_log_prob, _gumbel_draw, "uniform", reach="reals", recovered=_gumbel_recovered
)
WEIBULL = Formulas(
    td.Weibull, _weibull_log_prob, _weibull_draw, "uniform", reach="half-line", recovered=_weibull_recovered
)
PARETO = Formulas(
    td.Pareto, _pareto_log_prob, _pareto_draw, "uniform", movers=("scale",), recovered=_pareto_recovered
)
KUMARASWAMY = Formulas(
    td.Kumaraswamy,
    _kumaraswamy_log_prob,
    _kumaraswamy_draw,
    "uniform",
    reach="unit",
    recovered=_kumaraswamy_recovered,
)
GENERALIZED_PARETO = Formulas(
    td.GeneralizedPareto,
    _generalized_pareto_log_prob,
    _generalized_pareto_draw,
    "uniform",
    movers=("loc", "scale", "concentration"),
    recovered=_generalized_pareto_recovered,
)
