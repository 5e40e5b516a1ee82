"""What operations that move entries, choose among them and add them up are on arrays, by torch's names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import sympy as sp
import torch

from scg.algebra.arrays import Array, array, each, filled, flat, joined, operand
from scg.algebra.elementwise import entry, larger, sigmoid, times
from scg.algebra.paths import Path
from scg.errors import UnreadableError

Dims = int | Sequence[int] | None

MOVES = frozenset(
    "alias detach clone contiguous lift_fresh lift_fresh_copy view reshape _unsafe_view expand permute "
    "transpose t select slice squeeze unsqueeze flip repeat roll diagonal unbind split split_with_sizes "
    "index_select gather index narrow as_strided unfold".split()
)
"""Operations that only move the entries of their first argument: torch does that with their places."""
JOINS = frozenset("cat stack select_scatter slice_scatter index_put".split())
"""Operations that only move the entries of several arguments."""


def rows(value: Array, dims: Dims) -> tuple[list[int], list[list[Any]]]:
    """Return the dims that a reduction is over, and what it is of: a list of entries for each that stays."""
    rank = len(value.shape)
    several = [dims] if isinstance(dims, int) else list(dims or range(rank))
    gone = sorted({dim % rank for dim in several}) if rank else []
    kept = [dim for dim in range(rank) if dim not in gone]
    shape = [value.shape[dim] for dim in kept]
    moved = value.places.permute(*kept, *gone).reshape(*shape, -1) if rank else value.places.reshape(1)
    lists = moved.reshape(-1, moved.shape[-1]).tolist()
    return gone, [[value.entries[place] for place in row] for row in lists]


def along(value: Array, dims: Dims, fn: Callable[[list[Any]], Any], keep: bool = False) -> Array:
    """Reduce an array along some dims, or all, by a function of a list."""
    gone, lists = rows(value, dims)
    shape = [1 if dim in gone else size for dim, size in enumerate(value.shape) if keep or dim not in gone]
    return array(shape, [fn(row) for row in lists])


def rowwise(value: Array, dim: int, fn: Callable[[list[Any]], list[Any]]) -> Array:
    """Replace every row along a dim by a function of it."""
    if not value.shape:
        return filled((), fn([value.item()])[0])
    moved = value.moved(lambda places: places.movedim(dim, -1))
    found = [entry for row in rows(moved, -1)[1] for entry in fn(row)]
    return array(moved.shape, found).moved(lambda places: places.movedim(-1, dim))


def total(entries: Sequence[Any]) -> Any:
    """Return a sum."""
    return sp.Add(*entries)


def product(entries: Sequence[Any]) -> Any:
    """Return a product."""
    return functools.reduce(times, entries, sp.Integer(1))


def truths(row: list[Any]) -> list[bool]:
    """Return which of several known numbers are not 0."""
    if not all(e.is_number for e in row):
        raise UnreadableError("a number that is asked whether it is 0")
    return [bool(e != 0) for e in row]


def mean(row: list[Any]) -> Any:
    """Return a mean."""
    return total(row) / len(row)


def reduction(fn: Callable[[list[Any]], Any]) -> Callable[..., Array]:
    """Return what reduces an array along dims by a function of a list."""

    def reduce(value: Array, dims: Dims = None, keepdim: bool = False, *, path: Path) -> Array:
        return along(each(lambda e: entry(e, path), value), dims, fn, keepdim)

    return reduce


def scan(fn: Callable[[list[Any]], Any]) -> Callable[..., Array]:
    """Return what replaces entries by a function of those up to them."""

    def scanned(value: Array, dim: int, *, path: Path) -> Array:
        return rowwise(value, dim, lambda row: [fn(row[: place + 1]) for place in range(len(row))])

    return scanned


def variance(row: list[Any], correction: Any) -> Any:
    """Return the variance of a list."""
    centre = mean(row)
    return total([(entry - centre) ** 2 for entry in row]) / (len(row) - int(correction))


def variance_of(
    value: Array, dims: Dims = None, *, correction: Any = 1, keepdim: bool = False, path: Path
) -> Array:
    """``var``."""
    return along(value, dims, lambda row: variance(row, correction), keepdim)


def norm_of(value: Array, order: Any = 2, dims: Dims = None, keepdim: bool = False, *, path: Path) -> Array:
    """``linalg_vector_norm`` of order 2."""
    if order != 2:
        raise UnreadableError(f"a norm of order {order}")
    return along(value, dims, lambda row: sp.sqrt(total([entry**2 for entry in row])), keepdim)


def largest(value: Array, dims: Dims = None, keepdim: bool = False, *, path: Path) -> Array:
    """``amax``."""
    return along(value, dims, lambda row: functools.reduce(lambda a, b: larger(a, b, path), row), keepdim)


def smallest(value: Array, dims: Dims = None, keepdim: bool = False, *, path: Path) -> Array:
    """``amin``."""
    return each(lambda e: -e, largest(each(lambda e: -e, value), dims, keepdim, path=path))


def argmax(value: Array, dim: int | None = None, keepdim: bool = False, *, path: Path) -> Array:
    """``argmax``."""
    return along(value, dim, lambda row: sp.Integer(path.choose(row)), keepdim)


def argmin(value: Array, dim: int | None = None, keepdim: bool = False, *, path: Path) -> Array:
    """``argmin``."""
    return argmax(each(lambda e: -e, value), dim, keepdim, path=path)


def max_along(value: Array, dim: int, keepdim: bool = False, *, path: Path) -> tuple[Array, Array]:
    """``max`` along a dim, with where it is."""
    index = argmax(value, dim, keepdim, path=path)
    places = iter(flat(index))
    return along(value, dim, lambda row: row[int(next(places))], keepdim), index


def min_along(value: Array, dim: int, keepdim: bool = False, *, path: Path) -> tuple[Array, Array]:
    """``min`` along a dim, with where it is."""
    found, index = max_along(each(lambda e: -e, value), dim, keepdim, path=path)
    return each(lambda e: -e, found), index


def softmax(value: Array, dim: int, _: bool = False, *, path: Path) -> Array:
    """``_softmax``."""
    return rowwise(value, dim, lambda row: [sp.exp(e) / total([sp.exp(z) for z in row]) for e in row])


def log_softmax(value: Array, dim: int, _: bool = False, *, path: Path) -> Array:
    """``_log_softmax``."""
    return rowwise(value, dim, lambda row: [e - sp.log(total([sp.exp(z) for z in row])) for e in row])


def known(value: Array) -> list[int]:
    """Return numbers as integers that something is indexed by."""
    if not all(isinstance(e, sp.Integer) for e in value.entries):
        raise UnreadableError("an index that is not known")
    return [int(e) for e in flat(value)]


def scatter(value: Array, dim: int, index: Array, source: Any, *, path: Path) -> Array:
    """``scatter``."""
    to = torch.tensor(known(index)).reshape(index.shape)
    spread = operand(source).moved(lambda places: places.expand(index.shape) if not places.dim() else places)
    found: Array = joined(lambda a, b: a.scatter(dim, to, b), value, spread)
    return found


def scatter_add(value: Array, dim: int, index: Array, source: Array, *, path: Path) -> Array:
    """``scatter_add``."""
    found = dict(zip(value.indices, flat(value), strict=True))
    for at, to in zip(index.indices, known(index), strict=True):
        place = tuple(to if d == dim % len(at) else i for d, i in enumerate(at))
        found[place] = found[place] + source[at]
    return array(value.shape, found.values())


def matmul(a: Array, b: Array, *, path: Path) -> Array:
    """``mm``, ``mv`` and ``dot``."""
    left = rows(a, -1)[1]
    right = rows(b, 0)[1]
    entries = [
        total([times(x, y) for x, y in zip(row, column, strict=True)]) for row in left for column in right
    ]
    return array((*a.shape[:-1], *b.shape[1:]), entries)


def _part(value: Array, k: int) -> Array:
    return value.moved(lambda places: places[k])


def bmm(a: Array, b: Array, *, path: Path) -> Array:
    """``bmm``."""
    several = [matmul(_part(a, k), _part(b, k), path=path) for k in range(a.shape[0])]
    return array((a.shape[0], a.shape[1], b.shape[2]), [entry for one in several for entry in flat(one)])


def addmm(c: Array, a: Array, b: Array, *, beta: Any = 1, alpha: Any = 1, path: Path) -> Array:
    """``addmm``."""
    return each(lambda x, y: beta * x + alpha * y, c, matmul(a, b, path=path))


def layer_norm(
    value: Array, shape: Sequence[int], weight: Array | None, bias: Array | None, eps: Any, *, path: Path
) -> tuple[Array, Array, Array]:
    """``native_layer_norm``."""
    dims = list(range(len(value.shape) - len(shape), len(value.shape)))
    centre = along(value, dims, mean, True)
    scale = along(value, dims, lambda row: 1 / sp.sqrt(variance(row, 0) + eps), True)
    found = each(lambda a, m, s: (a - m) * s, value, centre, scale)
    found = found if weight is None else each(lambda a, w: a * w, found, weight)
    return (found if bias is None else each(lambda a, b: a + b, found, bias)), centre, scale


def elu(value: Array, alpha: Any = 1, scale: Any = 1, inner: Any = 1, *, path: Path) -> Array:
    """``elu``."""

    def one(a: Any) -> Any:
        return a * scale if path.decide(a) else alpha * scale * (sp.exp(a * inner) - 1)

    return each(one, value)


def clamp(value: Array, low: Any = None, high: Any = None, *, path: Path) -> Array:
    """``clamp``."""
    if low is not None:
        value = each(lambda a, b: larger(a, b, path), value, operand(low))
    if high is not None:
        value = each(lambda a, b: -larger(-a, -b, path), value, operand(high))
    return value


def embedding(weight: Array, index: Array, *_: Any, path: Path) -> Array:
    """``embedding``."""
    chosen = known(index)
    found = weight.moved(lambda places: places[chosen])
    return found.reshape(*index.shape, *weight.shape[1:])


def full(shape: Sequence[int], value: Any, *, path: Path) -> Array:
    """``full``."""
    return filled(shape, sp.sympify(value))


def empty(shape: Sequence[int], *_: Any, path: Path) -> Array:
    """``empty``, which something fills later."""
    return filled(shape, sp.nan)


def full_like(value: Array, fill: Any = 0, *, path: Path) -> Array:
    """``full_like``."""
    return filled(value.shape, sp.sympify(fill))


def scalar(value: Any, *, path: Path) -> Array:
    """``scalar_tensor``."""
    return operand(value)


def log_sigmoid(value: Array, *, path: Path) -> tuple[Array, Array]:
    """``log_sigmoid_forward``."""
    return each(lambda a: sp.log(sigmoid(a)), value), value


LAYOUT: dict[str, Callable[..., Any]] = {
    "sum": reduction(total), "mean": reduction(mean), "prod": reduction(product), "var": variance_of,
    "any": reduction(lambda row: sp.Integer(int(any(truths(row))))), "amax": largest,
    "all": reduction(lambda row: sp.Integer(int(all(truths(row))))), "amin": smallest,
    "argmax": argmax, "argmin": argmin, "linalg_vector_norm": norm_of, "cumsum": scan(total),
    "cumprod": scan(product), "_softmax": softmax, "_log_softmax": log_softmax, "scatter": scatter,
    "scatter_add": scatter_add,
    "mm": matmul, "mv": matmul, "dot": matmul, "bmm": bmm, "addmm": addmm, "native_layer_norm": layer_norm,
    "max": largest, "min": smallest, "elu": elu, "clamp": clamp, "embedding": embedding, "full": full,
    "full_like": full_like,
    "empty": empty, "empty_permuted": empty, "scalar_tensor": scalar, "log_sigmoid_forward": log_sigmoid,
}  # fmt: skip
ALONG = {"max": max_along, "min": min_along}
"""Operations that give two arrays where a dim is given."""
