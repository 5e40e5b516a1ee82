"""Ownership: the owner of every element of every tensor met in a recording, by the storage that holds it."""

from __future__ import annotations

import torch
from torch import Tensor

from scg.probes.dependence import JOINED, UNCLEAR, Label


def storage_of(tensor: Tensor) -> int:
    """Return what tensors have in common that look at the same elements."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


class Ownership:
    """Owners by label; views look at those of what they are views of.

    A negative owner stands for the operation that joined the elements of several, or was not clear.
    """

    def __init__(self) -> None:
        """Start without owners."""
        self.joints: list[str] = []
        self._flat: dict[tuple[Label, int], tuple[Tensor, int]] = {}
        self._alive: list[Tensor] = []  # lest the address of a storage return

    def keep(self, tensors: list[Tensor]) -> None:
        """Keep tensors, and their addresses, until the end of the recording."""
        self._alive += tensors

    def of(self, label: Label, tensor: Tensor) -> Tensor | None:
        """Return the owner of each element of a tensor, or None where none has one."""
        if not tensor.numel() or tensor.layout is not torch.strided:
            return None
        held = self._flat.get((label, storage_of(tensor)))
        if held is None:
            return None
        flat, width = held
        size = tensor.element_size()
        if size < width:
            flat = flat.repeat_interleave(width // size)
        elif size > width:
            flat = flat.view(-1, size // width).amax(-1)
        return flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    def assign(self, label: Label, tensor: Tensor, owners: Tensor) -> None:
        """Write down the owners of the elements of a tensor."""
        self._alive.append(tensor)
        if not tensor.numel() or tensor.layout is not torch.strided:
            return
        key = (label, storage_of(tensor))
        if key not in self._flat:
            if not bool(owners.any()):
                return
            width = tensor.element_size()
            flat = torch.zeros(tensor.untyped_storage().nbytes() // width, dtype=torch.long)
            self._flat[key] = (flat, width)
        flat, width = self._flat[key]
        if tensor.element_size() != width:
            flat.fill_(int(owners.min()) if bool((owners < 0).any()) else self.joint("view_dtype", UNCLEAR))
            return
        seen = flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        seen.copy_(owners.to(seen.device))

    def joint(self, name: str, kind: int) -> int:
        """Return the negative number that stands for an operation that joins, or is not clear."""
        if name not in self.joints:
            self.joints.append(name)
        return -(2 * self.joints.index(name) + (2 if kind == UNCLEAR else 1))

    def coded(self, name: str, owners: Tensor) -> Tensor:
        """Return the owners that an operation gave, with its own number where it joined or was not clear."""
        for kind in (JOINED, UNCLEAR):
            mask = owners == kind
            if bool(mask.any()):
                owners = torch.where(mask, self.joint(name, kind), owners)
        return owners

    def words(self, code: int) -> str:
        """Return the operation that a negative owner stands for."""
        return self.joints[(-code - 1) // 2]
