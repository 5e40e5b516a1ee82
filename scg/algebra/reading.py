"""Reading: the operations of a traced function, applied to arrays of expressions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sympy as sp
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from scg.algebra.arrays import Array, constant, each, joined, number, numeric, operand
from scg.algebra.elementwise import (
    JOINED,
    ON_A_PATH,
    ONE,
    TWO,
    Condition,
    Joined,
    Known,
    condition,
    entry,
    softplus,
    times,
)
from scg.algebra.layout import ALONG, JOINS, LAYOUT, MOVES, known
from scg.algebra.paths import Path
from scg.algebra.tracing import Traced
from scg.errors import UnreadableError

TYPES = frozenset("dtype layout device pin_memory memory_format non_blocking implicit sparse_grad".split())
"""Options that say nothing of values."""


def read(traced: Traced, arguments: Sequence[Array], path: Path) -> list[Array]:
    """Return what a traced function gives, flat, for arrays in place of its tensors."""
    values: dict[fx.Node, Any] = {}
    given = iter(arguments)
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            values[node] = next(given)
        elif node.op == "get_attr":
            values[node] = constant(getattr(traced, str(node.target)))
        elif node.op == "call_function":
            values[node] = Call(node, values, path).result()
        elif node.op == "output":
            found = pytree.tree_map_only(fx.Node, values.__getitem__, node.args[0])
            return [value for value in pytree.tree_leaves(found) if value is not None]
    raise AssertionError("a traced function has an output")


class Call:
    """One operation of a traced function."""

    def __init__(self, node: fx.Node, values: dict[fx.Node, Any], path: Path) -> None:
        """Take arguments that were read before, and exact numbers for those that are not whole."""
        self.node, self.path = node, path
        self.name = _name(node.target)
        self.arguments = [_argument(item, values) for item in node.args]
        self.options = {k: _argument(v, values) for k, v in node.kwargs.items() if k not in TYPES}
        self.tensor = node.meta.get("val")
        self.leaves, self.spec = pytree.tree_flatten((node.args, dict(node.kwargs)))
        self.arrays = {
            place: values[leaf] for place, leaf in enumerate(self.leaves) if isinstance(leaf, fx.Node)
        }

    def result(self) -> Any:
        """Return what the operation gives, in the shape that torch says it has."""
        if self.name == "getitem":
            return self.arguments[0][self.arguments[1]]
        if torch.Tag.nondeterministic_seeded in getattr(self.node.target, "tags", ()):
            raise UnreadableError(f"the operation '{self.name}' draws, beside the noise that is given")
        found = self._evaluated()
        found = self._applied() if found is None else found
        if isinstance(self.tensor, Tensor) and tuple(self.tensor.shape) != found.shape:
            raise UnreadableError(
                f"'{self.name}' was read with shape {found.shape}, not {tuple(self.tensor.shape)}"
            )
        return found

    def _evaluated(self) -> Array | None:
        """Have torch itself do what it does to whole numbers and truth values that are known."""
        if not isinstance(self.tensor, Tensor) or self.name in (*MOVES, *JOINS):
            return None
        if self.tensor.is_floating_point() and (self.arrays or self.name in LAYOUT):
            return None
        found = {}
        for place, value in self.arrays.items():
            one = numeric(value, self._dtype(place)) if isinstance(value, Array) else None
            if one is None:
                return None
            found[place] = one
        return constant(self._called(found))

    def _dtype(self, place: int) -> torch.dtype:
        found: torch.dtype = self.leaves[place].meta["val"].dtype
        return found

    def _called(self, tensors: dict[int, Tensor]) -> Any:
        """Call the operation itself with some tensors."""
        leaves = [tensors.get(place, leaf) for place, leaf in enumerate(self.leaves)]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        moves = self.name in MOVES or self.name in JOINS
        return self.node.target(*args, **{k: v for k, v in kwargs.items() if not moves or k not in TYPES})  # type: ignore[operator]

    def _applied(self) -> Any:
        """Apply the operation to arrays."""
        name, path = self.name, self.path
        if name in MOVES or name in JOINS:
            return self._moved()
        if name in ("add", "sub", "rsub"):
            return self._added()
        if name in ONE and self.options.get("approximate", "none") == "none":
            return each(ONE[name], self._entries(0))
        if name in TWO and not self.options:
            several = [self._entries(place, name in ("eq", "ne")) for place in (0, 1)]
            return each(TWO[name], *several)
        if name in JOINED:
            return each(
                lambda *all_: Joined(JOINED[name], *map(condition, all_)), *map(operand, self.arguments)
            )
        if name in ON_A_PATH:
            return each(lambda *all_: ON_A_PATH[name](*all_, path), *map(operand, self.arguments))
        if name in ("isfinite", "isnan", "isinf"):
            return each(lambda _: Known(name == "isfinite"), self.arguments[0])
        if name == "_to_copy":
            return self._cast()
        if name == "softplus":
            return each(softplus, self._entries(0))
        if name == "softplus_backward":
            return each(lambda g, a: times(g, 1 / (1 + sp.exp(-a))), self._entries(0), self._entries(1))
        if name in ALONG and len(self.arguments) > 1:
            return ALONG[name](*self.arguments, **self.options, path=path)
        if name in LAYOUT:
            return LAYOUT[name](*self.arguments, **self.options, path=path)
        raise UnreadableError(
            f"the operation '{name}' is not read: scg.symbolic.register a twin of the function that uses it"
        )

    def _added(self) -> Array:
        factor = self.options.get("alpha", 1)
        first, second = self._entries(0), self._entries(1)
        if self.name == "rsub":
            first, second = second, first
        sign = factor if self.name == "add" else -factor
        return each(lambda a, b: a + sign * b, first, second)

    def _moved(self) -> Any:
        """Have torch move entries by their places; tensors that follow, of whole numbers, tell where to."""
        _, *others = self.arrays
        told = {
            place: self._index(self.arrays[place], self._dtype(place))
            for place in others
            if not self._dtype(place).is_floating_point and self.name not in ("cat", "stack")
        }
        moving = [place for place in self.arrays if place not in told]
        return joined(
            lambda *places: self._called({**told, **dict(zip(moving, places, strict=True))}),
            *(self.arrays[place] for place in moving),
        )

    def _index(self, value: Array, dtype: torch.dtype) -> Tensor:
        if dtype == torch.bool:
            value = each(lambda e: entry(e, self.path), value)
            return torch.tensor([bool(e) for e in known(value)]).reshape(value.shape)
        return torch.tensor(known(value)).reshape(value.shape)

    def _entries(self, place: int, conditions: bool = False) -> Array:
        """Return an argument whose entries are expressions, and not truth values."""
        value = operand(self.arguments[place])
        if conditions or not any(isinstance(e, Condition) for e in value.entries):
            return value
        return each(lambda e: entry(e, self.path), value)

    def _cast(self) -> Array:
        dtype = self.tensor.dtype if isinstance(self.tensor, Tensor) else self.node.kwargs["dtype"]
        if dtype == torch.bool:
            return each(condition, operand(self.arguments[0]))
        value = self._entries(0)
        if dtype.is_floating_point:  # type: ignore[union-attr]
            return value
        if not all(e.is_number for e in value.entries):
            raise UnreadableError("a number that is cut down to a whole one")
        return each(lambda e: sp.Integer(int(e)), value)


def _argument(item: Any, values: dict[fx.Node, Any]) -> Any:
    if isinstance(item, fx.Node):
        return values[item]
    if isinstance(item, (list, tuple)):
        return [_argument(one, values) for one in item]
    return number(item) if isinstance(item, float) else item


def _name(target: Callable[..., Any] | str) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return target._opname.rstrip("_")
    return str(getattr(target, "__name__", target))
