"""Operation: one operation of a recorded call, and what can be told of it from its arguments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from scg.noise import reseed
from scg.probes.moves import INDEXING, PLACEWISE, PRODUCTS, ROWS
from scg.probes.recording import tensors_in

Owned = dict[int, Tensor]


class Operation(NamedTuple):
    """One operation: what it is, and the leaves of its arguments, which ``spec`` puts together again."""

    function: Any
    name: str
    leaves: list[Any]
    spec: Any

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the leaves."""
        return [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]

    @property
    def arguments(self) -> tuple[Any, Any]:
        """The arguments: those by place, and those by name."""
        args, kwargs = pytree.tree_unflatten(self.leaves, self.spec)
        return args, kwargs

    @property
    def is_mutable(self) -> bool:
        """Whether it writes into its arguments."""
        return bool(self.function._schema.is_mutable)

    @property
    def is_random(self) -> bool:
        """Whether it draws from a generator."""
        return torch.Tag.nondeterministic_seeded in self.function.tags

    @property
    def is_placewise(self) -> bool:
        """Whether an element of the result reads those of the arguments at its place alone."""
        return (torch.Tag.pointwise in self.function.tags or self.name in PLACEWISE) and not self.is_random

    def run(self, leaves: Sequence[Any]) -> list[Tensor]:
        """Run it on other leaves, with the same draws every time, and leave these as they are."""
        given = [leaf.clone() if self.is_mutable and isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(given, self.spec)
        if not self.is_random:
            return tensors(self.function(*args, **kwargs))
        with torch.random.fork_rng():
            reseed(0)
            return tensors(self.function(*args, **kwargs))


def turns(operation: Operation, args: Any, kwargs: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the dimensions along which an operation works, counted from the right."""
    names = (argument.name for argument in operation.function._schema.arguments)
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    rank = max((leaf.dim() for leaf in tensors_in(args)), default=0) + (operation.name == "stack")
    for key in ("dim", "dims"):
        if key in given and rank:
            several = given[key] if isinstance(given[key], (list, tuple)) else [given[key]]
            yield operation.name, tuple(d % rank - rank for d in several if isinstance(d, int))


def is_all(operation: Operation, owned: Owned) -> bool:
    """Say whether nothing that an operation reads of real numbers is a constant, in part or as a whole."""
    read = (index for index, leaf in enumerate(operation.leaves) if isinstance(leaf, Tensor) and leaf.dim())
    return all(index in owned and bool(owned[index].all()) for index in read)


def moved(operation: Operation, owned: Owned, outputs: list[Tensor]) -> list[Tensor]:
    """Do to numbers of owners what an operation does to elements."""
    numbers = [
        owned.get(i, torch.zeros(leaf.shape, dtype=torch.long)) if isinstance(leaf, Tensor) else leaf
        for i, leaf in enumerate(operation.leaves)
    ]
    args, kwargs = pytree.tree_unflatten(numbers, operation.spec)
    found = tensors(operation.function(*args, **{k: v for k, v in kwargs.items() if k != "dtype"}))
    if shapes(found) != shapes(outputs):
        raise RuntimeError("another shape")
    return found


def products(operation: Operation, owned: Owned, output: Tensor) -> Tensor | None:
    """Return the owners of a product of matrices whose first has rows that each have one owner, or None.

    An entry reads one row of the first and one column of the second, whatever is in them.
    """
    first = PRODUCTS.get(operation.name)
    if first is None or set(owned) != {first} or not owned[first].numel():
        return None
    alone = owned[first][..., :1]
    return alone.expand(output.shape) if bool((owned[first] == alone).all()) else None


def readings(operation: Operation, owned: Owned) -> Iterator[Owned]:
    """Yield what may be drawn anew: all that has owners; or all but places, which stay as they are.

    With other masks a result would have another shape, and with other places rows would go elsewhere that are
    put where they were taken from.
    """
    leaves, is_indexing = operation.leaves, operation.name in INDEXING
    has_masks = any(leaves[i].dtype == torch.bool for i in owned)
    if not (is_indexing and (has_masks or operation.name.rstrip("_") in ROWS)):
        yield owned
    if is_indexing:
        yield {i: owners for i, owners in owned.items() if leaves[i].is_floating_point()}


def written(operation: Operation, owned: Owned, like: Tensor) -> Tensor:
    """Return the owners of the places to which an operation writes rows, at these places."""
    args, _ = pytree.tree_unflatten(list(operation.leaves), operation.spec)
    owners = torch.zeros_like(like)
    for index, mine in owned.items():
        leaf = operation.leaves[index]
        if leaf.is_floating_point():
            continue
        if isinstance(args[1], int):
            dim = args[1] % owners.dim()
            sizes = [len(leaf) if d == dim else size for d, size in enumerate(owners.shape)]
            alone = mine.view([-1 if d == dim else 1 for d in range(owners.dim())])
            owners = owners.index_copy(dim, leaf, alone.expand(sizes))
        else:
            place = tuple(slice(None) if item is None else item for item in args[1])
            at = mine[leaf] if leaf.dtype == torch.bool else mine
            owners[place] = at[(..., *(None,) * (owners[place].dim() - at.dim()))]
    return owners


def steady(operation: Operation, varying: Owned) -> Owned:
    """Return what may vary, but for masks by which a result has its shape."""
    if operation.name not in INDEXING:
        return varying
    return {i: mask for i, mask in varying.items() if operation.leaves[i].dtype != torch.bool}


def shapes(several: Sequence[Tensor]) -> list[torch.Size]:
    """Return the shapes of tensors."""
    return [tensor.shape for tensor in several]


def tensors(value: Any) -> list[Tensor]:
    """Return the tensors in what an operation gives."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
