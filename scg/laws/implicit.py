"""The laws whose draws are reparameterised implicitly: dz = -dF/dtheta / p (Figurnov et al., 2018).

Each ``draw`` returns the value it was given, bit for bit, with that derivative attached to first order.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributions as td

from scg.laws.elementary import Formulas
from scg.laws.law import Parameters


def _attach(value: Tensor, *terms: tuple[Tensor, Tensor]) -> Tensor:
    """``value + sum of slope (theta - theta)``, finite where a slope over- or underflows."""
    result = value
    for slope, theta in terms:
        result = result + slope.detach().nan_to_num(0.0, 0.0, 0.0) * (theta - theta.detach())
    return result


def _gamma_slope(shape: Tensor, value: Tensor) -> Tensor:
    """``dx/d shape`` of a standard gamma variable at ``x = value``."""
    shape, value = torch.broadcast_tensors(shape.detach(), value.detach())
    return torch._standard_gamma_grad(shape.contiguous(), value.contiguous())


def _dirichlet_factor(value: Tensor, shape: Tensor, total: Tensor) -> Tensor:
    """``-dF/d shape / (p (1 - x))`` of a Beta(shape, total - shape) variable at ``x = value``."""
    value, shape, total = torch.broadcast_tensors(value.detach(), shape.detach(), total.detach())
    return torch._dirichlet_grad(value.contiguous(), shape.contiguous(), total.contiguous())


def _gamma_draw(p: Parameters, value: Tensor) -> Tensor:
    shape, rate = p["concentration"], p["rate"]
    slope = _gamma_slope(shape, value * rate) / rate
    return _attach(value, (slope, shape), (-value / rate, rate))


def _gamma_log_prob(p: Parameters, value: Tensor) -> Tensor:
    shape, rate = p["concentration"], p["rate"]
    return torch.xlogy(shape, rate) + torch.xlogy(shape - 1, value) - rate * value - torch.lgamma(shape)


def _inverse_gamma_draw(p: Parameters, value: Tensor) -> Tensor:
    shape, rate = p["concentration"], p["rate"]
    slope = -(value.square() / rate) * _gamma_slope(shape, rate / value)
    return _attach(value, (slope, shape), (value / rate, rate))


def _inverse_gamma_log_prob(p: Parameters, value: Tensor) -> Tensor:
    shape, rate = p["concentration"], p["rate"]
    return shape * rate.log() - (shape + 1) * value.log() - rate / value - torch.lgamma(shape)


def _chi2_draw(p: Parameters, value: Tensor) -> Tensor:
    return _attach(value, (_gamma_slope(p["df"] / 2, value / 2), p["df"]))


def _beta_draw(p: Parameters, value: Tensor) -> Tensor:
    one, zero = p["concentration1"], p["concentration0"]
    total, rest = one + zero, 1 - value
    up = _dirichlet_factor(value, one, total) * rest
    down = -_dirichlet_factor(rest, zero, total) * value
    return _attach(value, (up, one), (down, zero))


def _dirichlet_draw(p: Parameters, value: Tensor) -> Tensor:
    shape = p["concentration"]
    factor = _dirichlet_factor(value, shape, shape.sum(-1, keepdim=True)).nan_to_num(0.0, 0.0, 0.0)
    moved = factor * (shape - shape.detach())
    return value + (moved - value.detach() * moved.sum(-1, keepdim=True))


def _student_draw(p: Parameters, value: Tensor) -> Tensor:
    """``df / (df + t^2)`` is Beta(df/2, 1/2), whose derivative gives that of t."""
    df, loc, scale = p["df"], p["loc"], p["scale"]
    t = (value - loc) / scale
    rest = df / (df + t.square())
    factor = _dirichlet_factor(rest, df / 2, df / 2 + 0.5)
    slope = scale * t / 2 * (1 / df - factor / (2 * rest))
    return _attach(value, (slope, df), (torch.ones_like(t), loc), (t, scale))


def _fisher_draw(p: Parameters, value: Tensor) -> Tensor:
    """``df1 v / (df1 v + df2)`` is Beta(df1/2, df2/2), whose derivative gives that of v."""
    above, below = p["df1"], p["df2"]
    ratio = above * value
    one, zero = ratio / (ratio + below), below / (ratio + below)
    total = (above + below) / 2
    up = value * (_dirichlet_factor(one, above / 2, total) / (2 * one) - 1 / above)
    down = value * (1 / below - _dirichlet_factor(zero, below / 2, total) / (2 * zero))
    return _attach(value, (up, above), (down, below))


GAMMA = Formulas(td.Gamma, _gamma_log_prob, _gamma_draw, reach="half-line")
INVERSE_GAMMA = Formulas(td.InverseGamma, _inverse_gamma_log_prob, _inverse_gamma_draw, reach="half-line")
CHI2 = Formulas(td.Chi2, None, _chi2_draw, reach="half-line")
BETA = Formulas(td.Beta, None, _beta_draw, reach="unit")
DIRICHLET = Formulas(td.Dirichlet, None, _dirichlet_draw, ranks=(("concentration", 1),), value_rank=1)
STUDENT_T = Formulas(td.StudentT, None, _student_draw, reach="reals")
FISHER_SNEDECOR = Formulas(td.FisherSnedecor, None, _fisher_draw, reach="half-line")
