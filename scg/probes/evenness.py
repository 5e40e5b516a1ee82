"""Evenness: whether something in a recorded call tells the places of a label apart, besides its elements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from scg.probes.moves import FILLS, MOVES, PLACEWISE
from scg.probes.ownership import storage_of


class Evenness:
    """Remembers which tensors differ from place to place, along a dimension as long as a label.

    ``is_positional`` tells that such a tensor met the elements of a label.
    """

    def __init__(self, counts: Iterable[int], given: Iterable[Tensor]) -> None:
        """Look at dimensions of these lengths; what the call is ``given`` has places of its own."""
        self.is_positional = False
        self._counts = {count for count in counts if count > 1}
        self._uneven: set[int] = set()
        self._met = {storage_of(tensor) for tensor in given}

    def has_met(self, tensor: Tensor) -> bool:
        """Say whether a tensor was given, or made in the call."""
        return storage_of(tensor) in self._met

    def look(
        self, name: str, function: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor], *, is_owned: bool
    ) -> None:
        """Take in one operation, on elements of a label or on others."""
        for leaf in inputs:  # what was there before, as long as the label: written for each of its places
            if self._counts.intersection(leaf.shape) and not self.has_met(leaf):
                self._uneven.add(storage_of(leaf))
        self._met.update(map(storage_of, (*inputs, *outputs)))
        is_uneven = any(storage_of(leaf) in self._uneven for leaf in inputs)
        self.is_positional |= is_uneven and is_owned
        if is_owned or name in FILLS:
            return
        had = {size for leaf in inputs for size in leaf.shape}
        for out in outputs:
            if self._counts.intersection(out.shape) and (is_uneven or self._parts(name, function, had, out)):
                self._uneven.add(storage_of(out))

    def _parts(self, name: str, function: Any, had: set[int], out: Tensor) -> bool:
        """Say whether an operation on what is even makes something that is not."""
        if function.is_view and name != "lift_fresh":
            own = {n for n, stride in zip(out.shape, out.stride(), strict=True) if stride}
            return bool(self._counts & own - had)  # a piece of something, as long as the label
        if torch.Tag.pointwise in function.tags or name in MOVES | PLACEWISE:
            return False
        return any(_varies(out, dim) for dim, size in enumerate(out.shape) if size in self._counts)


def _varies(tensor: Tensor, dim: int) -> bool:
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    first = tensor.narrow(dim, 0, 1).expand_as(tensor)
    return not torch.allclose(tensor.to(torch.float64), first.to(torch.float64), equal_nan=True)
