"""The laws of normal noise: Normal and its images."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor
from torch import distributions as td

from scg.laws.elementary import Formulas
from scg.laws.law import Parameters
from scg.laws.numbers import INFINITY
from scg.laws.undoing import sticks

LOG_ROOT_TAU = 0.5 * math.log(2 * math.pi)


def _normal_draw(p: Parameters, noise: Tensor) -> Tensor:
    return p["loc"] + p["scale"] * noise


def _normal_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    return (value - p["loc"]) / p["scale"]


def _normal_log_prob(p: Parameters, value: Tensor) -> Tensor:
    scale = p["scale"]
    standard = (value - p["loc"]) / scale
    return torch.addcmul(-LOG_ROOT_TAU - scale.log(), standard, standard, value=-0.5)


def _log_normal_draw(p: Parameters, noise: Tensor) -> Tensor:
    return torch.exp(p["loc"] + p["scale"] * noise)


def _log_normal_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    return _normal_recovered(p, value.clamp(min=torch.finfo(value.dtype).tiny).log(), fresh)


def _log_normal_log_prob(p: Parameters, value: Tensor) -> Tensor:
    log = value.log()
    return _normal_log_prob(p, log) - log


def _half_normal_draw(p: Parameters, noise: Tensor) -> Tensor:
    return p["scale"] * noise.abs()


def _half_normal_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    """Either sign, that of the fresh noise."""
    return torch.copysign(value / p["scale"], fresh)


def _half_normal_log_prob(p: Parameters, value: Tensor) -> Tensor:
    scale = p["scale"]
    inside = -0.5 * (value / scale).square() - scale.log() + (math.log(2) - LOG_ROOT_TAU)
    return torch.where(value >= 0, inside, -INFINITY)


def _root(p: Parameters) -> Tensor:
    if "scale_tril" in p:
        return p["scale_tril"].tril()
    root: Tensor = td.MultivariateNormal(**p, validate_args=False).scale_tril
    return root


def _mvn_draw(p: Parameters, noise: Tensor) -> Tensor:
    return p["loc"] + (_root(p) @ noise.unsqueeze(-1)).squeeze(-1)


def _whitened(p: Parameters, value: Tensor, root: Tensor) -> Tensor:
    centred = (value - p["loc"]).unsqueeze(-1)
    white: Tensor = torch.linalg.solve_triangular(root, centred, upper=False)
    return white.squeeze(-1)


def _mvn_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    return _whitened(p, value, _root(p))


def _mvn_log_prob(p: Parameters, value: Tensor) -> Tensor:
    root = _root(p)
    white = _whitened(p, value, root)
    log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    result: Tensor = (-0.5 * white.square() - LOG_ROOT_TAU).sum(-1) - log_det
    return result


def _low_rank_draw(p: Parameters, noise: Tensor) -> Tensor:
    size = p["cov_diag"].shape[-1]
    factor = (p["cov_factor"] @ noise[..., size:].unsqueeze(-1)).squeeze(-1)
    return p["loc"] + factor + p["cov_diag"].sqrt() * noise[..., :size]


def _low_rank_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    """Move fresh noise ``(e, f)`` by its regression on what it draws wrong (Matheron's rule).

    ``f + (1 + W' W)^-1 W' r`` for ``r = (value - draw(e, f)) / sqrt(d)`` and ``W`` the factor over
    ``sqrt(d)``; what is then left of the value is ``e``.
    """
    size, root = p["cov_diag"].shape[-1], p["cov_diag"].sqrt()
    wrong = ((value - _low_rank_draw(p, fresh)) / root).unsqueeze(-1)
    factor = p["cov_factor"] / root.unsqueeze(-1)
    inner = factor.mT @ factor + torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    moved = torch.cholesky_solve(factor.mT @ wrong, torch.linalg.cholesky(inner))
    joint = fresh[..., size:] + moved.squeeze(-1)
    white = (value - p["loc"]) / root
    return torch.cat((white - (factor @ joint.unsqueeze(-1)).squeeze(-1), joint), -1)


def _stick_draw(p: Parameters, noise: Tensor) -> Tensor:
    value: Tensor = td.StickBreakingTransform()(p["loc"] + p["scale"] * noise)
    return value


def _stick_recovered(p: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
    return _normal_recovered(p, sticks(value), fresh)


def _matrix_event(p: Parameters) -> Size:
    name = next(name for name in p if name != "loc")
    return Size(p[name].shape[-1:])


def _low_rank_event(p: Parameters) -> Size:
    return Size([p["cov_diag"].shape[-1] + p["cov_factor"].shape[-1]])


def _loc_event(p: Parameters) -> Size:
    return Size(torch.broadcast_shapes(p["loc"].shape[-1:], p["scale"].shape[-1:]))


NORMAL = Formulas(
    td.Normal, _normal_log_prob, _normal_draw, "normal", reach="reals", recovered=_normal_recovered
)
LOG_NORMAL = Formulas(
    td.LogNormal,
    _log_normal_log_prob,
    _log_normal_draw,
    "normal",
    reach="half-line",
    recovered=_log_normal_recovered,
)
HALF_NORMAL = Formulas(
    td.HalfNormal,
    _half_normal_log_prob,
    _half_normal_draw,
    "normal",
    reach="half-line",
    recovered=_half_normal_recovered,
)
MULTIVARIATE_NORMAL = Formulas(
    td.MultivariateNormal,
    _mvn_log_prob,
    _mvn_draw,
    "normal",
    ranks=(("loc", 1), ("scale_tril", 2), ("covariance_matrix", 2), ("precision_matrix", 2)),
    value_rank=1,
    reach="reals",
    noise_event=_matrix_event,
    recovered=_mvn_recovered,
)
LOW_RANK_MULTIVARIATE_NORMAL = Formulas(
    td.LowRankMultivariateNormal,
    None,
    _low_rank_draw,
    "normal",
    ranks=(("loc", 1), ("cov_factor", 2), ("cov_diag", 1)),
    value_rank=1,
    reach="reals",
    noise_event=_low_rank_event,
    recovered=_low_rank_recovered,
)
LOGISTIC_NORMAL = Formulas(
    td.LogisticNormal,
    None,
    _stick_draw,
    "normal",
    ranks=(("loc", 1), ("scale", 1)),
    value_rank=1,
    noise_event=_loc_event,
    recovered=_stick_recovered,
)
