"""Arrays of sympy expressions, which stand for tensors; torch moves their entries, by places."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sympy as sp
import torch
from torch import Tensor

SIMPLE = {torch.float64: 10**6, torch.float32: 10**3}
"""The largest denominator of a fraction that a number of a type is read as."""


@dataclass(frozen=True, eq=False)
class Array:
    """A tensor of expressions: ``places`` says, in its shape, which of the ``entries`` is where."""

    entries: Sequence[Any]
    places: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""
        return tuple(self.places.shape)

    @property
    def indices(self) -> list[tuple[int, ...]]:
        """Where entries are, in the order of ``flat``."""
        return list(itertools.product(*map(range, self.shape)))

    def __getitem__(self, index: tuple[int, ...]) -> Any:
        """Return one entry."""
        return self.entries[int(self.places[index])]

    def item(self) -> Any:
        """Return the only entry."""
        return self.entries[int(self.places)]

    def moved(self, fn: Callable[[Tensor], Tensor]) -> Array:
        """Return the array that a function, which only moves entries, makes of it."""
        return Array(self.entries, fn(self.places.contiguous()))

    def reshape(self, *shape: int) -> Array:
        """Return it in another shape."""
        return self.moved(lambda places: places.reshape(shape))


def array(shape: Iterable[int], entries: Iterable[Any]) -> Array:
    """Return an array of a shape from all its entries in order."""
    several = list(entries)
    return Array(several, torch.arange(len(several)).reshape(tuple(shape)))


def filled(shape: Iterable[int], value: Any) -> Array:
    """Return an array of a shape with one value everywhere."""
    return Array([value], torch.zeros(tuple(shape), dtype=torch.int64))


def operand(value: Any) -> Array:
    """Return an array as it is, and a number as one of an exact number."""
    return value if isinstance(value, Array) else filled((), sp.sympify(value))


def constant(tensor: Tensor) -> Array:
    """Return a tensor as an array of numbers."""
    flattened = tensor.detach().reshape(-1).tolist()
    return array(tensor.shape, [number(value, tensor.dtype) for value in flattened])


def symbols(name: str, shape: tuple[int, ...], **assumptions: bool) -> Array:
    """Return an array of symbols: ``name`` itself where it is a scalar, else ``name_i_j``."""
    indices = itertools.product(*map(range, shape))
    return array(shape, [sp.Symbol("_".join([name, *map(str, index)]), **assumptions) for index in indices])


def flat(value: Array) -> list[Any]:
    """Return all entries in a list."""
    return [value.entries[place] for place in value.places.reshape(-1).tolist()]


def each(fn: Callable[..., Any], *arrays: Array) -> Array:
    """Apply a function to every entry of arrays that broadcast, once where entries are the same."""
    several = torch.broadcast_tensors(*(array.places for array in arrays))
    rows = list(zip(*(places.reshape(-1).tolist() for places in several), strict=True))
    distinct = {row: place for place, row in enumerate(dict.fromkeys(rows))}
    entries = [fn(*(a.entries[i] for a, i in zip(arrays, row, strict=True))) for row in distinct]
    return Array(entries, torch.tensor([distinct[row] for row in rows]).reshape(several[0].shape))


def joined(fn: Callable[..., Any], *arrays: Array) -> Any:
    """Return the array, or several, that a function which only moves entries makes of others."""
    entries: list[Any] = []
    several = []
    for one in arrays:
        several.append(one.places.contiguous() + len(entries))
        entries += list(one.entries)
    found = fn(*several)
    return Array(entries, found) if isinstance(found, Tensor) else [Array(entries, one) for one in found]


def numeric(value: Array, dtype: torch.dtype) -> Tensor | None:
    """Return an array as a tensor where every entry is a number, else None."""
    if not all(getattr(entry, "is_number", False) for entry in value.entries):
        return None
    kind = bool if dtype == torch.bool else float if dtype.is_floating_point else int
    return torch.tensor([kind(entry) for entry in flat(value)], dtype=dtype).reshape(value.shape)


def number(value: Any, dtype: torch.dtype = torch.float64) -> sp.Expr:
    """Return the simplest fraction that rounds to a number, and else the shortest decimal that does.

    >>> number(0.45), number(1 / 3), number(2)
    (9/20, 1/3, 2)
    """
    if isinstance(value, (bool, int)):
        return sp.Integer(int(value))
    if not math.isfinite(value):
        return sp.nan if math.isnan(value) else sp.oo if value > 0 else -sp.oo
    if dtype not in SIMPLE:
        return sp.Rational(value)
    value = _rounded(Fraction(value), dtype)
    simple = Fraction(value).limit_denominator(SIMPLE[dtype])
    if _rounded(simple, dtype) == value:
        return sp.Rational(simple.numerator, simple.denominator)
    digits = next(n for n in range(1, 18) if _rounded(Fraction(f"{value:.{n}g}"), dtype) == value)
    return sp.Rational(f"{value:.{digits}g}")


def _rounded(value: Fraction, dtype: torch.dtype) -> float:
    return torch.tensor(float(value), dtype=dtype).item()
