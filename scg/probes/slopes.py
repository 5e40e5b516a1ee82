"""Autograd's derivative along a random direction, held against central finite differences."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scg.probes.lines import shaped_like
from scg.probes.replay import Replay

STEPS = (1.0, 10.0, 0.1, 0.01)  # times the cube root of the precision, where central differences are best
TRIES = 3  # a kink may lie on one point, not on three


def disagreement(replay: Replay, point: Tensor, eps: float, generator: torch.Generator) -> str | None:
    """Both numbers, where they differ at and around a point; empty if they agree; None if none is finite."""
    found = None
    for attempt in range(TRIES):
        found = _compare(replay, point, eps, generator)
        if not found:
            return found
        point = point + 0.01 * 3**attempt * _noise(point, generator)
    return found


def _compare(replay: Replay, point: Tensor, eps: float, generator: torch.Generator) -> str | None:
    values = replay.glance(point).values
    if values is None or not bool(values.isfinite().any()):
        return None
    draw = torch.randn(values.shape, generator=generator, dtype=torch.float64).to(values.device)
    weights = torch.where(values.isfinite(), draw / (1 + values.abs()), 0.0)
    try:
        gradient = replay.gradient(point, weights)
    except Exception as error:  # noqa: BLE001 - no derivative, or a backward that fails
        return f"autograd fails ({error})"
    defined = gradient.isfinite()
    if bool(values.isfinite().all()) and not bool(defined.all()):
        return "autograd gives NaN or infinity where the value is finite"
    if not bool(defined.any()):
        return None
    direction = torch.where(defined, _noise(point, generator), 0.0)
    slope = float((gradient.double() * direction.double()).nan_to_num().sum())
    return _against(replay, point, direction, slope, weights, eps)


def _against(
    replay: Replay, point: Tensor, direction: Tensor, slope: float, weights: Tensor, eps: float
) -> str | None:
    tolerance = max(1e-4, 2 * eps ** (1 / 3))
    scale = eps ** (1 / 3) * max(1.0, float(point.double().square().mean().sqrt()))
    numbers = []
    for step in (factor * scale for factor in STEPS):
        number, rounding = _difference(replay, point, step * direction, step, weights)
        if number is None:
            continue
        if abs(number - slope) <= tolerance * (abs(number) + abs(slope)) + 16 * eps * rounding:
            return ""
        numbers.append(number)
    return (
        f"autograd disagrees with finite differences ({slope:.2g} against {numbers[0]:.2g})"
        if numbers
        else None
    )


def _difference(
    replay: Replay, point: Tensor, move: Tensor, step: float, weights: Tensor
) -> tuple[float | None, float]:
    ahead, behind = replay.glance(point + move).values, replay.glance(point - move).values
    if ahead is None or behind is None or ahead.shape != weights.shape or behind.shape != weights.shape:
        return None, 0.0
    change = torch.where(weights == 0, 0.0, weights * (ahead - behind)).sum() / (2 * step)
    size = torch.where(weights == 0, 0.0, weights * ahead).abs().sum() / step
    return (float(change), float(size)) if math.isfinite(change) else (None, 0.0)


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    draw = torch.randn(like.shape, generator=generator, dtype=torch.float64)
    return shaped_like(like, draw / draw.square().mean().sqrt())
