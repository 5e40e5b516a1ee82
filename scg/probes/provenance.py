"""Provenance: a recording of one call that tells, for every element of its results, whose elements it read.

Whose an element is follows from the operations performed, whatever the values were: from views and moves by
doing the same to numbers of owners, from operations place by place by what is beside what, and from others by
``dependence``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from scg.probes.branches import Reads
from scg.probes.dependence import JOINED, UNCLEAR, Call, Label, dependence, is_alike
from scg.probes.evenness import Evenness
from scg.probes.moves import AROUND_PRODUCTS, INDEXING, MOVES, OVERWRITES, RESHAPES, ROWS, SIZED
from scg.probes.operation import (
    Operation,
    Owned,
    is_all,
    moved,
    products,
    readings,
    shapes,
    steady,
    tensors,
    turns,
    written,
)
from scg.probes.operations import SHAPE_ONLY, is_domain_check
from scg.probes.ownership import Ownership, storage_of
from scg.probes.recording import LEAVES_TORCH
from scg.probes.selections import SELECTIONS, selected

aten = torch.ops.aten
VARYING = Label("#varying", 1)
"""Owns what may come to be something else; what it does not own was written as a constant in the call."""


class Provenance:
    """A recording: open it around one call, then ask whose elements the results read.

    ``sources`` has, for each label, tensors and the dimension along which their elements are told apart.
    ``steps`` are all operations with sizes left out, ``turns`` the dimensions along which they worked,
    counted from the right. ``reads`` has the numbers that Python reads, but of constants, and may give others
    in their place; ``of_elements`` has the owners of those of elements, by their place. ``index`` names the
    first operation at places that tensors tell, ``left`` that by which values left torch; ``is_random`` tells
    that something was drawn.
    """

    def __init__(
        self,
        sources: Mapping[Label, Sequence[tuple[Tensor, int]]],
        *,
        given: Sequence[Tensor] = (),
        reads: Reads | None = None,
    ) -> None:
        """Follow the sources; ``given`` is all that the call is given."""
        self.labels = tuple(sources)
        self.reads = reads or Reads()
        self.steps: list[Any] = []
        self.turns: list[Any] = []
        self.of_elements: dict[int, dict[Label, int]] = {}
        self.index: str | None = None
        self.left: str | None = None
        self.is_random = False
        self._ownership = Ownership()
        followed = [tensor for several in sources.values() for tensor, _ in several]
        self._evenness = Evenness((label.count for label in sources), (*given, *followed))
        self._known: dict[Any, list[tuple[Call, list[Tensor] | None]]] = {}
        self._modes = (_Functions(self), _Dispatch(self))
        for tensor in (*given, *followed):
            self._ownership.assign(VARYING, tensor, torch.ones(tensor.shape, dtype=torch.long))
        for label, several in sources.items():
            for tensor, dim in several:
                numbers = torch.arange(1, label.count + 1)
                shape = [-1 if d == dim else 1 for d in range(tensor.dim())]
                self._ownership.assign(label, tensor, numbers.view(shape).expand(tensor.shape))

    def __enter__(self) -> Self:
        for mode in self._modes:
            mode.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)  # type: ignore[no-untyped-call]

    @property
    def is_positional(self) -> bool:
        """Whether something told elements of a label apart by their place."""
        return self._evenness.is_positional

    def owners(self, label: Label, tensor: Tensor) -> Tensor | None:
        """Return the owner of every element of a tensor, negative where it has no single one, or None."""
        return self._ownership.of(label, tensor)

    def words(self, code: int) -> str:
        """Return the operation that a negative owner stands for."""
        return self._ownership.words(code)

    def is_unclear(self, code: int) -> bool:
        """Say whether a negative owner stands for an operation that was not understood."""
        return code % 2 == 0

    def operation(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Run one operation, and find the owners of its results."""
        self.reads.spend(function, args, kwargs)
        leaves, spec = pytree.tree_flatten((args, kwargs))
        operation = Operation(function, function._schema.name.removeprefix("aten::"), leaves, spec)
        self._meet(operation.tensors)
        owned = {label: self._owned(label, leaves) for label in self.labels}
        is_owned = any(owned.values())
        self._note(operation, args, kwargs, is_owned=is_owned)
        if function.overloadpacket is aten._local_scalar_dense:
            return self._scalar(function(*args), args[0], is_owned=is_owned)
        result = function(*args, **kwargs)
        outputs = tensors(result)
        self._ownership.keep(outputs)
        is_plain = function.overloadpacket in SHAPE_ONLY or operation.name in RESHAPES
        if is_plain or is_domain_check(function, args):
            return result
        self._evenness.look(operation.name, function, operation.tensors, outputs, is_owned=is_owned)
        owned[VARYING] = self._owned(VARYING, leaves)
        for label, mine in owned.items():
            if mine or operation.is_mutable:
                self._follow(label, operation, mine, owned[VARYING], outputs)
        if operation.is_random:
            for output in outputs:
                self._ownership.assign(VARYING, output, torch.ones(output.shape, dtype=torch.long))
        return result

    def _meet(self, tensors: Sequence[Tensor]) -> None:
        """Take what was there before the call for something that may change, unless it is a mask."""
        for tensor in tensors:
            if tensor.layout is torch.strided and not self._evenness.has_met(tensor):
                is_mask = not tensor.is_floating_point() or bool(tensor.isinf().any())
                if tensor.requires_grad or not is_mask:
                    self._ownership.assign(VARYING, tensor, torch.ones(tensor.shape, dtype=torch.long))

    def _owned(self, label: Label, leaves: Sequence[Any]) -> Owned:
        found = {}
        for index, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and (owners := self.owners(label, leaf)) is not None and owners.any():
                found[index] = owners.clone().to(leaf.device)
        return found

    def _follow(
        self, label: Label, operation: Operation, owned: Owned, varying: Owned, outputs: list[Tensor]
    ) -> None:
        """Write down the owners of results; views have those of what they are views of."""
        before = {storage_of(leaf) for leaf in operation.tensors if leaf.numel()}
        fresh = [operation.is_mutable or (out.numel() and storage_of(out) not in before) for out in outputs]
        if not any(fresh):
            return
        found = [torch.zeros((), dtype=torch.long) for _ in outputs]
        if label is VARYING and owned and is_all(operation, owned):
            found = [torch.ones((), dtype=torch.long) for _ in outputs]
        elif owned and operation.name not in OVERWRITES:
            found = self._found(label, operation, owned, varying, outputs)
        for out, owners, is_fresh in zip(outputs, found, fresh, strict=True):
            if is_fresh:
                known = owners.expand(out.shape) if owners.dim() <= out.dim() else owners
                self._ownership.assign(label, out, known)

    def _found(
        self, label: Label, operation: Operation, owned: Owned, varying: Owned, outputs: list[Tensor]
    ) -> list[Tensor]:
        """Return the owners of every result of an operation."""
        if operation.name in SELECTIONS and len(operation.tensors) == 1 and 0 in owned:
            joint = self._ownership.joint(operation.name, JOINED)
            return selected(operation, label, owned[0], joint, outputs)
        if operation.name == "nonzero":
            return [next(iter(owned.values()))[operation.leaves[0] != 0][:, None]]
        try:
            if operation.is_placewise:
                return [self._placewise(label, operation, owned, varying, out) for out in outputs]
            if operation.name in MOVES:
                return moved(operation, owned, outputs)
        except (RuntimeError, TypeError, NotImplementedError):
            pass
        lost = [int(owners.min()) for owners in owned.values() if bool((owners < 0).any())]
        if lost:
            return [torch.tensor(min(lost))] * len(outputs)
        if (product := products(operation, owned, outputs[0])) is not None:
            return [product]
        masks = {index: owners > 0 for index, owners in varying.items()}
        for given in readings(operation, owned):
            call = Call(operation.run, tuple(operation.leaves), given, steady(operation, masks))
            found = self._dependence(label, operation.function, call)
            if found is not None and shapes(found) == shapes(outputs):
                has_joined = any(bool((owners < 0).any()) for owners in found)
                if has_joined and given is owned and operation.name in INDEXING:
                    continue
                known = [self._ownership.coded(operation.name, owners) for owners in found]
                if operation.name.rstrip("_") in ROWS:
                    joint = self._ownership.joint(operation.name, JOINED)
                    known = [label.combined([o, written(operation, owned, o)], joint) for o in known]
                return known
        return [torch.tensor(self._ownership.joint(operation.name, UNCLEAR))] * len(outputs)

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
        self, label: Label, operation: Operation, owned: Owned, varying: Owned, out: Tensor
    ) -> Tensor:
        """Combine what is beside what; constants tell what is masked or not chosen, and so not read."""
        parts, leaves, name = dict(owned), operation.leaves, operation.name.removesuffix("_")
        if name in ("where", "masked_fill") and len(leaves) == 3:
            place, chosen = (0, 1) if name == "where" else (1, 2)
            if place not in varying:
                parts = {
                    index: torch.where(leaves[place] if index == chosen else ~leaves[place], owners, 0)
                    for index, owners in parts.items()
                }
        if name == "copy":
            parts = {1: owned[1]} if 1 in owned else {1: torch.zeros((), dtype=torch.long)}
        total = label.combined(list(parts.values()), self._ownership.joint(operation.name, JOINED))
        if name in ("add", "sub"):
            for index, leaf in enumerate(leaves):
                if isinstance(leaf, Tensor) and index not in varying and leaf.is_floating_point():
                    total = torch.where(leaf.isinf(), 0, total)
        return total.broadcast_to(out.shape).clone()

    def _scalar(self, value: Any, tensor: Tensor, *, is_owned: bool) -> Any:
        """Note a number that Python reads, and give what stands in its place; constants stay."""
        if not is_owned and not self._owned(VARYING, [tensor]):
            return value
        if is_owned:
            owners = {label: self.owners(label, tensor) for label in self.labels}
            self.of_elements[len(self.reads.values)] = {
                label: int(own.min()) for label, own in owners.items() if own is not None and own.any()
            }
        return self.reads.read(value)

    def escape(self, name: str, tensor: Tensor) -> None:
        """Note that values leave torch."""
        if self.left is None and any(self._owned(label, [tensor]) for label in self.labels):
            self.left = name

    def _note(self, operation: Operation, args: Any, kwargs: Any, *, is_owned: bool) -> None:
        """Write down an operation: with tensors by their rank and without sizes, which differ."""
        name, leaves = operation.name, operation.leaves
        self.is_random |= operation.is_random
        has_places = any(not leaf.is_floating_point() for leaf in operation.tensors)
        if is_owned and self.index is None and name in INDEXING and has_places:
            self.index = name
        told = [leaf.dim() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        numbers = tuple(x for x in told if type(x) is int)
        others = tuple(x for x in told if type(x) is not int)
        self.steps.append((str(operation.function), others, len(told) if name in SIZED else numbers))
        if is_owned and name not in AROUND_PRODUCTS:
            self.turns += turns(operation, args, kwargs)


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
