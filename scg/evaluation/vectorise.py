"""Run a function written for one world in many at once: added leading axes, in one of four modes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from scg.nodes import trees as pytree
from scg.nodes.arguments import Arguments
from scg.nodes.plates import insertion


@dataclass(frozen=True)
class Parent:
    """How the value of one parent is laid out: ``axes`` that were added, then plates, then event.

    ``varies`` says whether the parent may carry axes at all (it lies below something random);
    ``index`` gives it the size-1 plates that the function expects; ``plated`` that it has any plate.
    """

    axes: tuple[str, ...]
    index: tuple[slice | None, ...] | None
    plated: bool
    varies: bool


class Mappable:
    """A function that sees itself mapped: where a program is recorded."""

    def mapped(
        self,
        run: Callable[[], Any],
        values: tuple[Any, ...],
        dims: tuple[int | None, ...],
        given: tuple[tuple[Any, ...], Mapping[str, Any]],
    ) -> Any:
        """Return what ``run`` gives: the function mapped over ``dims`` of values among its arguments."""
        return run()


@dataclass(frozen=True, eq=False)
class Vectorised:
    """A call ``fn(*arguments)`` repeated along ``axes``, all of them flattened into one dimension.

    "broadcast" passes the dimension on as one more leading plate, "fold" merges it into the leftmost
    plate, "vmap" maps over it with ``torch.vmap``, "loop" calls once for each index and stacks.
    """

    arguments: Arguments
    parents: Mapping[str, Parent]
    axes: tuple[str, ...]
    mode: str

    @property
    def is_plain(self) -> bool:
        """Whether to call ``fn`` on the values as they are does the same."""
        return self.mode == "broadcast" and all(
            parent.index is None and (parent.axes == self.axes if parent.varies else not parent.plated)
            for parent in self.parents.values()
        )

    def __call__(self, fn: Callable[..., Any], *values: Any) -> Any:
        """Call ``fn`` with the values of the parents, in the order of ``arguments.names``."""
        given = dict(zip(self.parents, values, strict=True))
        sizes = self._sizes(given)
        count = 1
        for size in sizes:
            count *= size
        flat = {name: self._flatten(self.parents[name], value, sizes) for name, value in given.items()}
        result = getattr(self, f"_{self.mode}")(fn, flat, count)
        if len(sizes) == 1:
            return result
        return pytree.tree_map_only(Tensor, lambda leaf: leaf.unflatten(0, sizes), result)

    def _sizes(self, given: Mapping[str, Any]) -> tuple[int, ...]:
        found: dict[str, int] = {}
        for name, parent in self.parents.items():
            value = given[name]
            for leaf in (value,) if isinstance(value, Tensor) else pytree.tensors(value)[:1]:
                found.update(zip(parent.axes, leaf.shape, strict=False))
        return tuple(found[axis] for axis in self.axes)

    def _flatten(self, parent: Parent, value: Any, sizes: tuple[int, ...]) -> Any:
        """Expand a parent that varies to every axis, merge these into one, and add missing plates."""

        def leaf(tensor: Tensor) -> Tensor:
            if not parent.varies:
                return tensor if parent.index is None else tensor[parent.index]
            missing = insertion(parent.axes, self.axes)
            if missing is not None:
                tensor = tensor[missing]
            tensor = tensor.expand(*sizes, *tensor.shape[len(sizes) :])
            tensor = tensor.flatten(0, len(sizes) - 1) if len(sizes) > 1 else tensor
            return tensor if parent.index is None else tensor[(slice(None), *parent.index)]

        return leaf(value) if isinstance(value, Tensor) else pytree.tree_map_only(Tensor, leaf, value)

    def _apply(self, fn: Callable[..., Any], values: Mapping[str, Any]) -> Any:
        args, kwargs = self.arguments.substitute(values.__getitem__)
        return fn(*args, **kwargs)

    def _each(self, values: Mapping[str, Any], leaf: Callable[[Parent, Tensor], Tensor]) -> dict[str, Any]:
        return {
            name: pytree.tree_map_only(Tensor, partial(leaf, self.parents[name]), value)
            for name, value in values.items()
        }

    def _broadcast(self, fn: Callable[..., Any], values: Mapping[str, Any], count: int) -> Any:
        def leaf(parent: Parent, tensor: Tensor) -> Tensor:
            return tensor if parent.varies or not parent.plated else tensor[None]

        return self._apply(fn, self._each(values, leaf))

    def _fold(self, fn: Callable[..., Any], values: Mapping[str, Any], count: int) -> Any:
        varying = [name for name, parent in self.parents.items() if parent.varies]
        if not all(self.parents[name].plated for name in varying):
            raise ValueError("only values with a plate can be folded")
        size = max(
            leaf.shape[1 if parent.varies else 0]
            for name, parent in self.parents.items()
            if parent.plated
            for leaf in pytree.tensors(values[name])[:1]
        )

        def leaf(parent: Parent, tensor: Tensor) -> Tensor:
            if not parent.plated:
                return tensor
            tensor = tensor if parent.varies else tensor[None]
            return tensor.expand(count, size, *tensor.shape[2:]).flatten(0, 1)

        result = self._apply(fn, self._each(values, leaf))
        return pytree.tree_map_only(Tensor, lambda out: out.unflatten(0, (count, size)), result)

    def _vmap(self, fn: Callable[..., Any], values: Mapping[str, Any], count: int) -> Any:
        if all(isinstance(value, Tensor) for value in values.values()) and not isinstance(fn, Mappable):
            return self._mapped_tensors(fn, values)
        leaves, spec = pytree.tree_flatten(dict(values))
        varies = pytree.tree_leaves(
            {n: pytree.tree_map(lambda _, n=n: self.parents[n].varies, values[n]) for n in values}
        )
        dims = tuple(
            0 if v and isinstance(leaf, Tensor) else None for v, leaf in zip(varies, leaves, strict=True)
        )

        def run() -> Any:
            return self._mapped(fn, leaves, spec, dims)

        if isinstance(fn, Mappable):
            return fn.mapped(run, tuple(leaves), dims, self.arguments.substitute(values.__getitem__))
        return run()

    def _mapped(
        self, fn: Callable[..., Any], leaves: list[Any], spec: Any, dims: tuple[int | None, ...]
    ) -> Any:
        found: list[Any] = []

        def one(*inner: Any) -> list[Tensor]:
            found[:] = [self._apply(fn, pytree.tree_unflatten(list(inner), spec))]
            return pytree.tensors(found[0])

        mapped = iter(torch.vmap(one, in_dims=dims, randomness="different")(*leaves))
        return pytree.tree_map_only(Tensor, lambda _: next(mapped), found[0])

    def _mapped_tensors(self, fn: Callable[..., Any], values: Mapping[str, Tensor]) -> Any:
        """Map over tensors that are in no container."""
        dims = tuple(0 if self.parents[name].varies else None for name in values)
        found: list[Any] = []

        def one(*inner: Tensor) -> Any:
            found[:] = [self._apply(fn, dict(zip(values, inner, strict=True)))]
            return found[0] if isinstance(found[0], Tensor) else pytree.tensors(found[0])

        mapped = torch.vmap(one, in_dims=dims, randomness="different")(*values.values())
        if isinstance(mapped, Tensor):
            return mapped
        several = iter(mapped)
        return pytree.tree_map_only(Tensor, lambda _: next(several), found[0])

    def _loop(self, fn: Callable[..., Any], values: Mapping[str, Any], count: int) -> Any:
        def at(index: int) -> dict[str, Any]:
            return self._each(values, lambda parent, tensor: tensor[index] if parent.varies else tensor)

        results = [self._apply(fn, at(index)) for index in range(count)]
        return pytree.tree_map(together, *results)


def together(*leaves: Any) -> Any:
    """Stack what several calls gave in one place; what is no number stays, if it is the same in all."""
    if all(isinstance(leaf, (Tensor, int, float, complex)) for leaf in leaves):
        return torch.stack([torch.as_tensor(leaf) for leaf in leaves])
    if any(leaf is not leaves[0] and leaf != leaves[0] for leaf in leaves):
        raise TypeError(f"calls gave {leaves[0]!r} and others in one place, which cannot be stacked")
    return leaves[0]
