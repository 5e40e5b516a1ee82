"""The way back through transforms: which have one, and values at the ends that rounding reached."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import ComposeTransform, IndependentTransform, StickBreakingTransform, Transform

from scg.laws.transforms import Chain, Fixed, Independently, Inverse, Template


def is_bijective(template: Template) -> bool:
    """Whether a transform has an inverse, as torch declares it.

    >>> from scg.laws.transforms import template_of
    >>> is_bijective(template_of(torch.distributions.transforms.AbsTransform(), "size")[0])
    False
    """
    match template:
        case Fixed():
            return bool(template.transform.bijective)
        case Chain(parts):
            return all(map(is_bijective, parts))
        case Inverse(part) | Independently(part):
            return is_bijective(part)
    return True


def undone(transform: Transform, value: Tensor) -> Tensor:
    """The inverse at a value, at its nearest neighbour where an end that is never drawn has no inverse.

    >>> undone(torch.distributions.TanhTransform(), torch.tensor([-1.0, 1.0])).isfinite().all()
    tensor(True)
    """
    if isinstance(transform, ComposeTransform):
        for step in reversed(transform.parts):
            value = undone(step, value)
        return value
    if isinstance(transform, IndependentTransform):
        return undone(transform.base_transform, value)
    if isinstance(transform, StickBreakingTransform):
        return sticks(value)
    inverse: Tensor = transform.inv(_within(value, transform.codomain))
    return inverse


def sticks(value: Tensor) -> Tensor:
    """Where stick breaking takes to ``value``: ``x_k = log v_k - log sum_{j > k} v_j + log(n - k)``.

    The rest is summed from its end, so that a small one keeps its digits.
    """
    count = value.shape[-1] - 1
    whole = value.clamp(min=torch.finfo(value.dtype).tiny)
    rest = whole[..., 1:].flip(-1).cumsum(-1).flip(-1)
    left = torch.arange(count, 0, -1, dtype=value.dtype, device=value.device)
    return whole[..., :-1].log() - rest.log() + left.log()


def _within(value: Tensor, codomain: Any) -> Tensor:
    """Values off the ends of an interval whose ends are numbers."""
    bounds = torch.finfo(value.dtype)
    low, high = (getattr(codomain, f"{side}_bound", None) for side in ("lower", "upper"))
    if isinstance(low, (int, float)):
        value = value.clamp(min=low + (bounds.eps * abs(low) or bounds.tiny))
    if isinstance(high, (int, float)):
        value = value.clamp(max=high - (bounds.eps * abs(high) or bounds.tiny))
    return value
