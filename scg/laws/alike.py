"""Equality by value of what laws hold: numbers, transforms, tensors and functions."""

from __future__ import annotations

from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform

PASSING = ("_inv", "_cached_x_y", "_cache_size", "_batch_shape", "_validate_args")
"""Attributes of distributions and transforms that follow from the rest, or are only remembered."""


@dataclass(frozen=True, eq=False)
class Held:
    """Something that a law holds besides its parameters, compared by value."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and alike(self.value, other.value)

    def __hash__(self) -> int:
        return hash(type(self.value))


def alike(one: Any, other: Any) -> bool:
    """Say whether two things are of one type and hold the same, however they came to be.

    >>> alike([1.0, torch.ones(2)], [1.0, torch.ones(2)]), alike(1.0, 2.0)
    (True, False)
    """
    if one is other:
        return True
    if type(one) is not type(other) or isinstance(one, nn.Module):
        return False
    if isinstance(one, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and _equal(one, other)
    if isinstance(one, (Transform, Distribution)):
        return not differing(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(item, other[key]) for key, item in one.items())
    if isinstance(one, FunctionType):
        return _same_function(one, other)
    return bool(one == other)


def differing(one: Any, other: Any, *, looks: bool = True) -> tuple[str, ...]:
    """Return the attributes in which two transforms or distributions of one type differ.

    Tensors that both have are passed over unless it ``looks``.
    """
    left, right = vars(one), vars(other)
    names = [name for name in left if name not in PASSING]
    if not looks:
        names = [n for n in names if not (isinstance(left[n], Tensor) and isinstance(right.get(n), Tensor))]
    return tuple(name for name in names if name not in right or not alike(left[name], right[name]))


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.detach(), other.detach())


def _same_function(one: FunctionType, other: FunctionType) -> bool:
    cells = [[cell.cell_contents for cell in fn.__closure__ or ()] for fn in (one, other)]
    return (
        one.__code__ is other.__code__
        and alike(one.__defaults__, other.__defaults__)
        and alike(one.__kwdefaults__, other.__kwdefaults__)
        and alike(*cells)
    )
