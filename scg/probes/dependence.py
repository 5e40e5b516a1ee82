"""Dependence: which elements of what one operation takes reach which elements of what it gives.

It is found on random numbers in place of the values, so that no weight of zero can hide it. Elements have
owners, numbered from 1; 0 is nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

DRAWS, MORE_DRAWS = 2, 4
CUTS = 12
JOINED, UNCLEAR = -1, -2
"""What stands for an element that reads several owners, and for one of which it was not found out."""


Fill = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Label:
    """A dimension whose elements are told apart, ``count`` of them.

    In an ordered one an element is owned by the latest that it reads; elsewhere by the only one.
    """

    name: str
    count: int
    is_ordered: bool = False

    def groups(self) -> list[int]:
        """Return what parts the owners: binary digits, or places where an order is cut."""
        if not self.is_ordered:
            return list(range(self.count.bit_length()))
        step = max(1, -(-self.count // CUTS))
        return list(range(1, self.count + 1, step))

    def member(self, owners: Tensor, group: int) -> Tensor:
        """Say which owners have a digit, or come no earlier than a cut."""
        return owners >= group if self.is_ordered else ((owners.clamp(min=0) >> group) & 1) == 1

    def combined(self, several: Sequence[Tensor], joined: int) -> Tensor:
        """Return the owner of what is computed place by place from elements of the given owners."""
        total = several[0]
        for owners in several[1:]:
            total, owners = torch.broadcast_tensors(total, owners)
            if self.is_ordered:
                lost = torch.minimum(total, owners)
                total = torch.where(lost < 0, lost, torch.maximum(total, owners))
                continue
            either = torch.where(total == 0, owners, total)
            lost = torch.where(owners < 0, owners, joined)
            total = torch.where((owners == 0) | (owners == either) | (either < 0), either, lost)
        return total


@dataclass(frozen=True, eq=False)
class Call:
    """One operation on the leaves of its arguments.

    ``owners`` has those of each leaf that has some, and ``varying`` says which elements of a leaf may come to
    be something else; what it lacks is as it is for ever.
    """

    run: Callable[[Sequence[Any]], list[Tensor]]
    leaves: tuple[Any, ...]
    owners: Mapping[int, Tensor]
    varying: Mapping[int, Tensor]

    def kept(self, index: int) -> Tensor:
        """Say which elements of a leaf of real numbers stay: masks and padding, written as constants."""
        leaf, varying = self.leaves[index], self.varying.get(index)
        special: Tensor = leaf.isinf() | (leaf == 0)
        return special if varying is None else special & ~varying


def dependence(call: Call, label: Label) -> list[Tensor] | None:
    """Return the owners of what an operation gives, or None where it runs on nothing that was tried.

    Elements of some owners are drawn anew and what changes is theirs: those with each binary digit in their
    number, and those without; in an order, all from each place on.
    """
    seen: list[tuple[Tensor, Tensor]] | None = None
    found: list[Tensor] | None = None
    for draw in range(MORE_DRAWS):
        changed = _changed(call, label, draw)
        if changed is None:
            return None
        seen = (
            changed
            if seen is None
            else [(a | c, b | d) for (a, b), (c, d) in zip(seen, changed, strict=True)]
        )
        found = [_decoded(label, *pair) for pair in seen]
        if draw + 1 >= DRAWS and not any(bool((owners == UNCLEAR).any()) for owners in found):
            break
    return found


def is_alike(one: Call, other: Call) -> bool:
    """Say whether two calls of one operation differ in numbers alone that would be drawn anew."""
    if len(one.leaves) != len(other.leaves) or one.owners.keys() != other.owners.keys():
        return False
    same_owners = all(torch.equal(owners, other.owners[index]) for index, owners in one.owners.items())
    return same_owners and all(_leaf_is_alike(one, other, index) for index in range(len(one.leaves)))


def _leaf_is_alike(one: Call, other: Call, index: int) -> bool:
    mine, yours = one.leaves[index], other.leaves[index]
    if not isinstance(mine, Tensor) or not isinstance(yours, Tensor):
        return type(mine) is type(yours) and bool(mine == yours)
    if mine.shape != yours.shape or mine.dtype != yours.dtype or mine.stride() != yours.stride():
        return False
    if not mine.is_floating_point():
        return torch.equal(mine, yours) and (index in one.varying) == (index in other.varying)
    return torch.equal(one.kept(index), other.kept(index))


def _changed(call: Call, label: Label, draw: int) -> list[tuple[Tensor, Tensor]] | None:
    """Return, for every output, what changes with the owners in each group, and with the others."""
    fills = (_wide if draw % 2 else _between, _between, _definite, _near)
    for index, fill in enumerate((*fills, fills[0])):
        generator = torch.Generator().manual_seed(draw)
        try:
            one = _filled(call, fill, generator, is_other=False)
            other = _filled(call, fill, generator, is_other=True)
            base = call.run(one)
            if index < len(fills) and not all(map(_is_finite, base)):
                continue
            rows = [_differ(base, call.run(mixed)) for mixed in _mixtures(call, label, one, other)]
        except Exception:  # noqa: BLE001 - an operation may refuse random numbers in any way it likes
            continue
        half = len(label.groups())
        return [
            (torch.stack([row[i] for row in rows[:half]]), torch.stack([row[i] for row in rows[half:]]))
            for i in range(len(base))
        ]
    return None


def _mixtures(call: Call, label: Label, one: list[Any], other: list[Any]) -> Iterator[list[Any]]:
    for is_inside in (True, False):
        for group in label.groups():
            mixed = list(one)
            for index, owners in call.owners.items():
                mask = (label.member(owners, group) == is_inside) & (owners > 0)
                mixed[index] = torch.where(mask, other[index], one[index])
            yield mixed


def _is_finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())


def _filled(
    call: Call,
    fill: Callable[[Tensor, torch.Generator], Tensor],
    generator: torch.Generator,
    *,
    is_other: bool,
) -> list[Any]:
    """Return the leaves with new numbers, but for what is kept.

    Booleans that may vary are drawn as well; integers, which may be places, only where they have owners, and
    only to be replaced by.
    """
    filled = list(call.leaves)
    for index, leaf in enumerate(call.leaves):
        if not isinstance(leaf, Tensor):
            continue
        if leaf.is_floating_point() or leaf.is_complex():
            filled[index] = torch.where(call.kept(index), leaf, fill(leaf, generator))
        elif index in call.owners:
            filled[index] = _shuffled(leaf, generator) if is_other else leaf
        elif leaf.dtype == torch.bool and index in call.varying:
            filled[index] = _shuffled(leaf, generator)
    return filled


def _between(leaf: Tensor, generator: torch.Generator) -> Tensor:
    return (0.2 + 0.6 * torch.rand(leaf.shape, generator=generator, dtype=torch.float64)).to(leaf)


def _wide(leaf: Tensor, generator: torch.Generator) -> Tensor:
    return (5 * torch.randn(leaf.shape, generator=generator, dtype=torch.float64)).to(leaf)


def _definite(leaf: Tensor, generator: torch.Generator) -> Tensor:
    """Draw positive definite matrices where there are square ones."""
    drawn = _between(leaf, generator)
    if leaf.dim() < 2 or leaf.shape[-1] != leaf.shape[-2]:
        return drawn
    return drawn @ drawn.mT + torch.eye(leaf.shape[-1], dtype=leaf.dtype, device=leaf.device)


def _near(leaf: Tensor, generator: torch.Generator) -> Tensor:
    return leaf * (1 + 0.01 * torch.rand(leaf.shape, generator=generator, dtype=torch.float64).to(leaf))


def _shuffled(leaf: Tensor, generator: torch.Generator) -> Tensor:
    """Draw integers or booleans that are as valid as those there are."""
    if leaf.dtype == torch.bool or not leaf.numel():
        return (torch.rand(leaf.shape, generator=generator) < 0.5).to(leaf)
    low, high = min(int(leaf.min()), 0), int(leaf.max())
    return torch.randint(low, high + 1, leaf.shape, generator=generator).to(leaf)


def _differ(one: list[Tensor], other: list[Tensor]) -> list[Tensor]:
    """Say of each output where it differs by more than rounding."""
    return [_differs(a, b) for a, b in zip(one, other, strict=True)]


def _differs(one: Tensor, other: Tensor) -> Tensor:
    if not (one.is_floating_point() or one.is_complex()):
        return one != other
    eps = torch.finfo(one.dtype).eps
    return ~torch.isclose(one, other, rtol=64 * eps, atol=16 * eps, equal_nan=True)


def _decoded(label: Label, inside: Tensor, outside: Tensor) -> Tensor:
    """Return owners from what changed with each group, and with the owners outside of it."""
    groups = torch.tensor(label.groups(), device=inside.device).view(-1, *(1,) * (inside.dim() - 1))
    if label.is_ordered:
        return torch.where(inside, groups, 0).amax(0)
    owners = torch.where(inside, 2**groups, 0).sum(0)
    touched = inside | outside
    owners = torch.where(touched.any(0) & ~touched.all(0), UNCLEAR, owners)
    return torch.where((inside & outside).any(0), JOINED, owners)
