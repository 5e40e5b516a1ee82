"""Autograd's derivative along a random direction, held against central finite differences."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scg.probes.lines import shaped_like
from scg.probes.replay import Replay

STEPS = (1.0, 10.0, 0.1, 0.01)  # times the cube root of the precision, where central differences are best
TRIES = 3  # a kink may lie on one point, not on three


@dataclass(frozen=True)
class Slope:
    """What came of comparing: what is wrong, if anything, and whether the outputs changed at all."""

    fault: str
    is_awake: bool


def compared(replay: Replay, point: Tensor, eps: float, generator: torch.Generator) -> Slope | None:
    """Compare at and around a point, since a kink may lie on one; None if nothing is finite there."""
    found = None
    for attempt in range(TRIES):
        found = _compare(replay, point, eps, generator)
        if found is None or not found.fault:
            return found
        point = point + 0.01 * 3**attempt * _noise(point, generator)
    return found


def _compare(replay: Replay, point: Tensor, eps: float, generator: torch.Generator) -> Slope | None:
    values = replay.glance(point).values
    if values is None or not bool(values.isfinite().any()):
        return None
    draw = torch.randn(values.shape, generator=generator, dtype=torch.float64).to(values.device)
    weights = torch.where(values.isfinite(), draw / (1 + values.abs()), 0.0)
    try:
        gradient = replay.gradient(point, weights)
    except Exception as error:  # noqa: BLE001 - no derivative, or a backward that fails
        return Slope(f"autograd fails ({error})", is_awake=True)
    defined = gradient.isfinite()
    if bool(values.isfinite().all()) and not bool(defined.all()):
        return Slope("autograd gives NaN or infinity where the value is finite", is_awake=True)
    if not bool(defined.any()):
        return None
    direction = torch.where(defined, _noise(point, generator), 0.0)
    slope = float((gradient.double() * direction.double()).nan_to_num().sum())
    return _against(replay, point, direction, slope, weights, eps)


def _against(
    replay: Replay, point: Tensor, direction: Tensor, slope: float, weights: Tensor, eps: float
) -> Slope | None:
    tolerance = max(1e-4, 2 * eps ** (1 / 3))
    scale = eps ** (1 / 3) * max(1.0, float(point.double().square().mean().sqrt()))
    numbers = []
    for step in (factor * scale for factor in STEPS):
        number, rounding = _difference(replay, point, step * direction, step, weights)
        if number is None:
            continue
        if abs(number - slope) <= tolerance * (abs(number) + abs(slope)) + 16 * eps * rounding:
            return Slope("", is_awake=slope != 0 or number != 0)
        numbers.append(number)
    if not numbers:
        return None
    return Slope(
        f"autograd disagrees with finite differences ({slope:.2g} against {numbers[0]:.2g})", is_awake=True
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
