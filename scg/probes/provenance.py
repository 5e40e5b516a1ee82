"""Provenance: a recording of one call that tells, for every element of its results, whose elements it read.

Whose an element is follows from the operations performed, whatever the values were: from views and moves by
doing the same to numbers of owners, from operations place by place by what is beside what, and from others by
``dependence``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from scg.probes.dependence import JOINED, UNCLEAR, Call, Label, dependence, is_alike
from scg.probes.operations import SHAPE_ONLY, is_domain_check
from scg.probes.recording import LEAVES_TORCH, tensors_in

aten = torch.ops.aten

MOVES = frozenset(
    """cat stack clone copy repeat flip roll constant_pad_nd slice_scatter select_scatter diagonal_scatter
    as_strided_scatter tril triu rot90 channel_shuffle pixel_shuffle pixel_unshuffle lift_fresh_copy
    unsafe_split unsafe_split_with_sizes diag_embed block_diag _unsafe_view unfold_copy expand_copy
    permute_copy select_copy slice_copy view_copy transpose_copy detach_copy squeeze_copy unsqueeze_copy
    t_copy unbind_copy split_copy split_with_sizes_copy diagonal_copy as_strided_copy alias_copy""".split()
)
"""Operations that only move elements: done to numbers of owners they give the owners of the result."""

PLACEWISE = frozenset("_to_copy copy_ contiguous floor_divide floor_divide_".split())
RESHAPES = frozenset(
    "squeeze_ unsqueeze_ t_ transpose_ as_strided_ swapaxes_ swapdims_ detach_ resize_".split()
)
"""Operations that change how a tensor looks at its elements, and none of these."""

FILLS = frozenset(
    """zeros ones full empty new_zeros new_ones new_full new_empty new_empty_strided empty_strided zeros_like
    ones_like full_like empty_like rand randn rand_like randn_like randint randint_like zero_ fill_
    uniform_ normal_ exponential_ random_ geometric_ cauchy_ log_normal_ scalar_tensor
    bernoulli_ native_dropout""".split()
)
"""Operations whose results are alike at all of their places, or are random there."""

OVERWRITES = frozenset(
    "zero_ fill_ uniform_ normal_ exponential_ random_ geometric_ cauchy_ log_normal_".split()
)
DIMS = frozenset(("dim", "dims"))
AROUND_PRODUCTS = frozenset("unsqueeze squeeze transpose expand permute t".split())


class Provenance:
    """A recording: open it around one call, then ask whose elements the results read.

    ``sources`` has, for each label, tensors and the dimension along which their elements are told apart.
    ``joints`` lists what joined elements or was not understood, ``steps`` all operations with sizes left out,
    ``turns`` the dimensions along which operations worked, counted from the right. ``scalars`` has the
    numbers that Python read of joined elements: ``instead`` gives others in their place.
    ``is_positional`` tells that something told elements apart by their place, ``is_random`` that it drew.
    """

    def __init__(
        self,
        sources: Mapping[Label, Sequence[tuple[Tensor, int]]],
        *,
        given: Sequence[Tensor] = (),
        instead: Mapping[int, Any] | None = None,
    ) -> None:
        """Follow the sources; ``given`` is what else the call is given."""
        self.labels = tuple(sources)
        self.instead = instead or {}
        self.joints: list[str] = []
        self.steps: list[Any] = []
        self.turns: list[Any] = []
        self.scalars: list[tuple[str, Any]] = []
        self.index: str | None = None
        self.left: str | None = None
        self.is_positional = False
        self.is_random = False
        self._counts = {label.count for label in sources if label.count > 1}
        self._uneven: set[int] = set()
        self._met = {_storage(tensor) for tensor in given}
        self._owners: dict[tuple[Label, int], tuple[Tensor, int]] = {}
        self._alive: list[Tensor] = []
        self._known: dict[Any, list[tuple[Call, list[Tensor] | None]]] = {}
        self._modes = (_Functions(self), _Dispatch(self))
        for label, several in sources.items():
            for tensor, dim in several:
                numbers = torch.arange(1, label.count + 1)
                shape = [-1 if d == dim else 1 for d in range(tensor.dim())]
                self._assign(label, tensor, numbers.view(shape).expand(tensor.shape))
                self._met.add(_storage(tensor))

    def __enter__(self) -> Self:
        for mode in self._modes:
            mode.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)  # type: ignore[no-untyped-call]

    def owners(self, label: Label, tensor: Tensor) -> Tensor | None:
        """Return the owner of every element of a tensor, negative where it has no single one, or None."""
        if not tensor.numel() or tensor.layout is not torch.strided:
            return None
        held = self._owners.get((label, _storage(tensor)))
        if held is None:
            return None
        flat, width = held
        if tensor.element_size() == width:
            return flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        wide, narrow = max(width, tensor.element_size()), min(width, tensor.element_size())
        if width > tensor.element_size():
            flat = flat.repeat_interleave(wide // narrow)
        else:
            flat = flat.view(-1, wide // narrow).amax(-1)
        return flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    def told(self, code: int) -> str:
        """Return the operation that a negative owner stands for."""
        return self.joints[(-code - 1) // 2]

    def is_unclear(self, code: int) -> bool:
        """Say whether a negative owner stands for an operation that was not understood."""
        return code % 2 == 0

    def operation(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Run one operation, and find the owners of its results."""
        packet, name = function.overloadpacket, function._schema.name.removeprefix("aten::")
        leaves, spec = pytree.tree_flatten((args, kwargs))
        owned = {label: self._owned(label, leaves) for label in self.labels}
        self._note(function, name, args, kwargs, leaves, any(owned.values()))
        if packet is aten._local_scalar_dense:
            return self._scalar(function, args, owned)
        result = function(*args, **kwargs)
        outputs = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
        self._alive += outputs
        if packet in SHAPE_ONLY or name in RESHAPES or is_domain_check(function, args):
            return result
        self._even(name, function, leaves, outputs)
        for label in self.labels:
            if owned[label] or name in OVERWRITES or function._schema.is_mutable:
                self._follow(label, function, name, (leaves, spec), owned[label], outputs)
        return result

    def _owned(self, label: Label, leaves: Sequence[Any]) -> dict[int, Tensor]:
        found = {}
        for index, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and (owners := self.owners(label, leaf)) is not None and owners.any():
                found[index] = owners.clone().to(leaf.device)
        return found

    def _follow(
        self,
        label: Label,
        function: Any,
        name: str,
        call: tuple[list[Any], Any],
        owned: dict[int, Tensor],
        outputs: list[Tensor],
    ) -> None:
        leaves, _ = call
        fresh = [out for out in outputs if self._is_new(out, leaves, function)]
        if not fresh:
            return  # views, whose elements are those of what they are views of
        if not owned or name in OVERWRITES:
            found = [torch.zeros((), dtype=torch.long) for _ in outputs]
        else:
            found = self._found(label, function, name, call, owned, outputs)
        for out, owners in zip(outputs, found, strict=True):
            if any(out is item for item in fresh):
                self._assign(label, out, owners.expand(out.shape) if owners.dim() <= out.dim() else owners)

    def _is_new(self, out: Tensor, leaves: Sequence[Any], function: Any) -> bool:
        if function._schema.is_mutable:
            return True
        storages = {_storage(leaf) for leaf in leaves if isinstance(leaf, Tensor) and leaf.numel()}
        return out.numel() > 0 and _storage(out) not in storages

    def _found(
        self,
        label: Label,
        function: Any,
        name: str,
        call: tuple[list[Any], Any],
        owned: dict[int, Tensor],
        outputs: list[Tensor],
    ) -> list[Tensor]:
        leaves, spec = call
        lost = [int(owners.min()) for owners in owned.values() if bool((owners < 0).any())]
        if name == "nonzero":
            return [next(iter(owned.values()))[leaves[0] != 0][:, None]]
        placewise = torch.Tag.pointwise in function.tags or name in PLACEWISE
        try:
            if placewise and torch.Tag.nondeterministic_seeded not in function.tags:
                return [self._placewise(label, name, leaves, owned, out) for out in outputs]
            if name in MOVES:
                return self._moved(function, leaves, spec, owned, outputs)
        except (RuntimeError, TypeError, NotImplementedError):
            pass
        if lost:
            return [torch.tensor(min(lost))] * len(outputs)
        for given in _readings(name, leaves, owned):
            found = self._dependence(label, function, Call(_runner(function, spec), tuple(leaves), given))
            if found is not None and _shapes(found) == _shapes(outputs):
                if any(bool((owners < 0).any()) for owners in found) and given is owned and name in INDEXING:
                    continue
                return [self._coded(name, owners) for owners in found]
        return [torch.tensor(self._joint(name, UNCLEAR))] * len(outputs)

    def _dependence(self, label: Label, function: Any, call: Call) -> list[Tensor] | None:
        """Return what is known of an equal operation, as layers repeat, or find it out."""
        alike = self._known.setdefault((label, function), [])
        for other, found in alike:
            if is_alike(call, other):
                return found
        found = dependence(call, label)
        alike.append((call, found))
        return found

    def _placewise(
        self, label: Label, name: str, leaves: list[Any], owned: dict[int, Tensor], out: Tensor
    ) -> Tensor:
        parts = dict(owned)
        chosen = name in ("where", "masked_fill", "masked_fill_") and len(leaves) > 1
        condition = (0 if name == "where" else 1) if chosen else None
        if condition is not None and condition not in owned and isinstance(leaves[condition], Tensor):
            mask = leaves[condition]  # what is not chosen is not read
            for index in list(parts):
                is_kept = mask if name == "where" and index == 1 else ~mask
                parts[index] = torch.where(is_kept, parts[index], 0)
        if name == "copy_":
            parts = {1: owned[1]} if 1 in owned else {1: torch.zeros((), dtype=torch.long)}
        total = label.combined(list(parts.values()), self._joint(name, JOINED))
        if name in ("add", "add_", "sub", "sub_"):
            for index, leaf in enumerate(leaves):
                if isinstance(leaf, Tensor) and index not in owned and leaf.is_floating_point():
                    total = torch.where(leaf.isinf(), 0, total)  # masked, whatever is added
        return total.broadcast_to(out.shape).clone()

    def _moved(
        self, function: Any, leaves: list[Any], spec: Any, owned: dict[int, Tensor], outputs: list[Tensor]
    ) -> list[Tensor]:
        numbers = [
            owned.get(i, torch.zeros(leaf.shape, dtype=torch.long)) if isinstance(leaf, Tensor) else leaf
            for i, leaf in enumerate(leaves)
        ]
        args, kwargs = pytree.tree_unflatten(numbers, spec)
        found = pytree.tree_leaves(function(*args, **{k: v for k, v in kwargs.items() if k != "dtype"}))
        if _shapes(found) != _shapes(outputs):
            raise RuntimeError("another shape")
        return found

    def _coded(self, name: str, owners: Tensor) -> Tensor:
        for kind in (JOINED, UNCLEAR):
            mask = owners == kind
            if bool(mask.any()):
                owners = torch.where(mask, self._joint(name, kind), owners)
        return owners

    def _joint(self, name: str, kind: int) -> int:
        """Return the negative number that stands for an operation that joins, or is not clear."""
        if name not in self.joints:
            self.joints.append(name)
        return -(2 * self.joints.index(name) + (2 if kind == UNCLEAR else 1))

    def _assign(self, label: Label, tensor: Tensor, owners: Tensor) -> None:
        self._alive.append(tensor)
        if not tensor.numel() or tensor.layout is not torch.strided:
            return
        key = (label, _storage(tensor))
        if key not in self._owners:
            if not bool(owners.any()):
                return
            width = tensor.element_size()
            flat = torch.zeros(tensor.untyped_storage().nbytes() // width, dtype=torch.long)
            self._owners[key] = (flat, width)
        flat, width = self._owners[key]
        if tensor.element_size() != width:
            flat.fill_(int(owners.min()) if bool((owners < 0).any()) else self._joint("view_dtype", UNCLEAR))
            return
        seen = flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        seen.copy_(owners.to(seen.device))

    def _scalar(self, function: Any, args: Any, owned: Mapping[Label, dict[int, Tensor]]) -> Any:
        """Note a number that Python reads of joined elements, or give another in its place."""
        value = function(*args)
        if any(owners for owners in owned.values()):
            place = len(self.scalars)
            self.scalars.append(("a number that Python reads", value))
            return self.instead.get(place, value)
        return value

    def escape(self, name: str, tensor: Tensor) -> None:
        """Note that values leave torch."""
        if self.left is None and any(self._owned(label, [tensor]) for label in self.labels):
            self.left = name

    def _note(
        self, function: Any, name: str, args: Any, kwargs: Any, leaves: Sequence[Any], is_owned: bool
    ) -> None:
        """Write down an operation: with tensors by their rank and without sizes, which differ."""
        integers = (leaf for leaf in leaves if isinstance(leaf, Tensor) and not leaf.dtype.is_floating_point)
        if is_owned and self.index is None and name in INDEXING and any(True for _ in integers):
            self.index = name
        told = [leaf.dim() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.steps.append(
            (str(function), tuple(x for x in told if not isinstance(x, int) or isinstance(x, bool)))
        )
        self.steps.append(tuple(x for x in told if isinstance(x, int)) if name not in SIZED else len(told))
        if is_owned and name not in AROUND_PRODUCTS:
            self._turn(function, name, args, kwargs)

    def _turn(self, function: Any, name: str, args: Any, kwargs: Any) -> None:
        ranks = [leaf.dim() for leaf in tensors_in(args) if isinstance(leaf, Tensor)]
        given = {**dict(zip((a.name for a in function._schema.arguments), args, strict=False)), **kwargs}
        dims = [value for key, value in given.items() if key in DIMS]
        for value in dims:
            several = value if isinstance(value, (list, tuple)) else [value]
            rank = max(ranks) + (name == "stack")
            self.turns.append((name, tuple(d % rank - rank for d in several if isinstance(d, int))))

    def _even(self, name: str, function: Any, leaves: Sequence[Any], outputs: Sequence[Tensor]) -> None:
        """Find tensors that tell one place of a label from another without being of a source."""
        inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self.is_random |= torch.Tag.nondeterministic_seeded in function.tags
        for leaf in inputs:  # what was there before, as long as the label: written for each of its places
            if self._counts.intersection(leaf.shape) and _storage(leaf) not in self._met:
                self._uneven.add(_storage(leaf))
        self._met.update(map(_storage, (*inputs, *outputs)))
        is_uneven = any(_storage(leaf) in self._uneven for leaf in inputs)
        is_owned = any(self._owned(label, inputs) for label in self.labels)
        self.is_positional |= is_uneven and is_owned
        if is_owned or name in FILLS:
            return
        spreads = torch.Tag.pointwise in function.tags or name in MOVES | PLACEWISE
        had = {size for leaf in inputs for size in leaf.shape}
        for out in outputs:
            if not is_uneven and function.is_view and name != "lift_fresh":
                own = {n for n, stride in zip(out.shape, out.stride(), strict=True) if stride}
                is_uneven = bool(self._counts & own - had)  # a piece of something as long as the label
            elif not is_uneven and not spreads:
                is_uneven = any(_varies(out, d) for d, n in enumerate(out.shape) if n in self._counts)
            if is_uneven and self._counts.intersection(out.shape):
                self._uneven.add(_storage(out))


def _varies(tensor: Tensor, dim: int) -> bool:
    first = tensor.narrow(dim, 0, 1).expand_as(tensor)
    return not torch.allclose(tensor.to(torch.float64), first.to(torch.float64), equal_nan=True)


INDEXING = frozenset(
    """nonzero index index_put index_put_ _unsafe_index _index_put_impl_ gather scatter scatter_ index_select
    index_copy index_copy_ index_add index_add_ scatter_add scatter_add_ scatter_reduce scatter_reduce_
    masked_select masked_scatter embedding take put put_ index_fill index_fill_""".split()
)
SIZED = frozenset(
    """view _unsafe_view reshape expand zeros ones full empty new_zeros new_ones new_full new_empty rand randn
    split_with_sizes unsafe_split_with_sizes repeat as_strided empty_strided new_empty_strided""".split()
)
"""Operations that are told sizes."""


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


def _shapes(several: Sequence[Tensor]) -> list[torch.Size]:
    return [tensor.shape for tensor in several]


def _readings(name: str, leaves: list[Any], owned: dict[int, Tensor]) -> Iterator[dict[int, Tensor]]:
    """Yield what may be drawn anew: all that has owners; or all but places, which stay as they are.

    With other masks a result would have another shape, and with other places rows would go elsewhere that are
    put where they were taken from.
    """
    masks = [i for i in owned if leaves[i].dtype == torch.bool] if name in INDEXING else []
    if not masks:
        yield owned
    if name in INDEXING:
        yield {i: owners for i, owners in owned.items() if leaves[i].is_floating_point()}


def _runner(function: Any, spec: Any) -> Any:
    is_random = torch.Tag.nondeterministic_seeded in function.tags
    is_mutable = function._schema.is_mutable

    def run(leaves: Sequence[Any]) -> list[Tensor]:
        given = [leaf.clone() if is_mutable and isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(given, spec)
        if not is_random:
            return [out for out in pytree.tree_leaves(function(*args, **kwargs)) if isinstance(out, Tensor)]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return [out for out in pytree.tree_leaves(function(*args, **kwargs)) if isinstance(out, Tensor)]

    return run


class _Dispatch(TorchDispatchMode):
    def __init__(self, provenance: Provenance) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._provenance = provenance

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._provenance.operation(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    def __init__(self, provenance: Provenance) -> None:
        super().__init__()
        self._provenance = provenance

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in LEAVES_TORCH:
            self._provenance.escape(func.__name__, args[0])
        return func(*args, **(kwargs or {}))
