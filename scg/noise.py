"""Base noise: from a seed by position, or from torch's global generator, laid out by node."""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor

GOLDEN = -7046029254386353131
FIRST, SECOND = -4658895280553007687, -7723592293110705685
MASK_34, MASK_37, MASK_33 = (1 << 34) - 1, (1 << 37) - 1, (1 << 33) - 1
MASK_52 = (1 << 52) - 1
ALL = (1 << 64) - 1
WORDS = slice(3, 3 + 624)
"""Where the words of a Mersenne twister lie in the state of torch's generator, as 64-bit integers."""


@dataclass(frozen=True)
class NoiseSpec:
    """The base noise of one stochastic node: ``kind`` is "uniform" on the open (0, 1), or "normal".

    Nodes that are ``alike`` have noise of one kind, type and shape, whatever the sizes of plates.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    alike: tuple[Any, ...] = ()


Groups = tuple[tuple[NoiseSpec, tuple[str, ...]], ...]
"""Specifications of noise, each with the names of all that are drawn together."""


def _mix_(state: Tensor) -> Tensor:
    """Scramble 64-bit integers in place: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    state.bitwise_xor_((state >> 30).bitwise_and_(MASK_34)).mul_(FIRST)
    state.bitwise_xor_((state >> 27).bitwise_and_(MASK_37)).mul_(SECOND)
    return state.bitwise_xor_((state >> 31).bitwise_and_(MASK_33))


def _mix(state: int) -> int:
    """Scramble one integer as ``_mix_`` does, into a signed one."""
    state = (state ^ (state & ALL) >> 30) * FIRST & ALL
    state = (state ^ state >> 27) * SECOND & ALL
    state ^= state >> 31
    return state - (ALL + 1) if state >> 63 else state


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def word(text: str) -> int:
    """Return 64 bits that stand for a text, as a signed integer.

    >>> word("plumless") != word("buckeroo")
    True
    """
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def folded(seed: int) -> int:
    """Return a seed of any size as a signed integer of 64 bits: itself where it is one.

    After ``index`` torch.compile takes an integer for a constant, for which alone its code is.

    >>> folded(-5), folded(2**70) != folded(2**70 + 1)
    (-5, True)
    """
    if -(2**63) <= seed < 2**63:
        return seed if torch.compiler.is_compiling() else operator.index(seed)
    large: int = word(f"#{operator.index(seed)}")
    return large


def traced(seed: int | Tensor, device: torch.device | None = None) -> Tensor:
    """Return a seed as code that torch.compile traces computes with it: a tensor, which wraps around.

    Of a Python integer torch.compile would make exact arithmetic, which 64 bits do not hold.
    """
    if isinstance(seed, Tensor):
        return seed.to(torch.int64)
    return _opaque(torch.full((), folded(seed), dtype=torch.int64, device=device))


def _opaque(number: Tensor) -> Tensor:
    """Return integers as they are, by an operation that torch.compile does not take for index arithmetic.

    It adds and multiplies what it takes for an index symbolically, and then in steps of floating point.
    """
    return number.bitwise_xor(0)


@overload
def substream(seed: int, stream: str) -> int: ...
@overload
def substream(seed: Tensor, stream: str) -> Tensor: ...
def substream(seed: int | Tensor, stream: str) -> int | Tensor:
    """Derive the seed of a named stream, independent of every other.

    >>> substream(0, "b") != substream(0, "c") != substream(1, "b")
    True
    """
    named: int = word(stream)
    if isinstance(seed, Tensor):
        return _mix_(_mix_(seed + GOLDEN).bitwise_xor_(_mix(named)))
    return _mix(_mix(folded(seed) + GOLDEN) ^ _mix(named))


def seed_of(noise: Mapping[str, Tensor]) -> int:
    """Derive a seed from given noise, for draws that the noise does not cover."""
    seed = 0
    for name in sorted(noise):
        bits = noise[name].detach().to(torch.float64).reshape(-1).view(torch.int64)
        place = torch.arange(1, len(bits) + 1, device=bits.device)
        seed = substream(seed ^ int(_mix_(bits + place * GOLDEN).sum()), name)
    return seed


def uniform(seed: int | Tensor, count: int, device: torch.device | None = None) -> Tensor:
    """Draw ``[count]`` float64 numbers, uniform on (0, 1) and never at its ends.

    They are the same bit by bit, compiled or not.

    >>> float(uniform(0, 100_000).mean().round(decimals=2))
    0.5
    """
    bits = _bits(seed, count, device)
    return (bits >> 12).bitwise_and_(MASK_52).to(torch.float64).add_(0.5).mul_(2.0**-52)


def _bits(seed: int | Tensor, count: int, device: torch.device | None = None) -> Tensor:
    """Draw 64-bit integers: the stream of SplitMix64 that starts at a seed."""
    counter = torch.arange(1, count + 1, dtype=torch.int64, device=device)
    if torch.compiler.is_compiling():
        seed, counter = traced(seed, device), _opaque(counter)
    start = _mix_(seed + GOLDEN) if isinstance(seed, Tensor) else _mix(folded(seed) + GOLDEN)
    return _mix_(counter.mul_(GOLDEN).add_(start))


def reseed(seed: int) -> None:
    """Start torch's generators from a seed, those of accelerators where there are any.

    Where there are none, ``torch.manual_seed`` would put off their part, with the stack, for ever.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def start_generators(seed: int) -> None:
    """Start torch's generators from all bits of a seed; of those ``torch.manual_seed`` takes 32 on a CPU."""
    reseed(folded(seed) & ALL)
    state = torch.get_rng_state()
    words = state.view(torch.int64)[WORDS]
    words.bitwise_xor_(_bits(seed, len(words)).bitwise_and_(2**32 - 1))
    torch.set_rng_state(state)


@dataclass(frozen=True, eq=False)
class NoiseLayout:
    """Where the noise of each node lies in one flat draw: normal noise first, equal shapes together.

    It depends on the nodes and their shapes only, so that a seed means the same noise under any policy.
    """

    groups: Groups
    names: tuple[str, ...]
    normals: int
    total: int


def noise_layout(specs: Sequence[NoiseSpec]) -> NoiseLayout:
    """Group the noise of several nodes that are alike."""
    groups: dict[tuple[Any, ...], list[NoiseSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.alike or (spec.kind, str(spec.dtype), spec.shape), []).append(spec)
    ordered = sorted(groups.values(), key=lambda several: several[0].kind)
    sizes = [len(several) * math.prod(several[0].shape) for several in ordered]
    normals = sum(size for size, several in zip(sizes, ordered, strict=True) if several[0].kind == "normal")
    return NoiseLayout(
        tuple((several[0], tuple(spec.name for spec in several)) for several in ordered),
        tuple(spec.name for spec in specs),
        normals,
        sum(sizes),
    )


def draw_noise(
    seed: int | Tensor, *layouts: NoiseLayout, device: torch.device | None = None
) -> dict[str, Tensor]:
    """Draw the noise of every node from a seed in one call, each node's tensor a view of it.

    What a layout draws does not depend on those that follow it.
    """
    count = sum(layout.total for layout in layouts)
    if not count:
        return {}
    flat = uniform(seed, count, device)
    drawn: dict[str, Tensor] = {}
    for layout in layouts:
        drawn.update(_transformed(flat[: layout.total], layout))
        flat = flat[layout.total :]
    return drawn


def merged(*layouts: NoiseLayout) -> Groups:
    """Group the noise of several layouts that is alike."""
    groups: dict[tuple[Any, ...], tuple[NoiseSpec, list[str]]] = {}
    for layout in layouts:
        for spec, names in layout.groups:
            groups.setdefault(spec.alike or (spec.kind, spec.dtype, spec.shape), (spec, []))[1].extend(names)
    return tuple((spec, tuple(names)) for spec, names in groups.values())


def global_noise(groups: Groups, device: torch.device | None = None) -> dict[str, Tensor]:
    """Draw the noise of every node from torch's global generator, each group in one call."""
    drawn: dict[str, Tensor] = {}
    for spec, names in groups:
        shape = (len(names), *spec.shape)
        if spec.kind == "normal":
            piece = torch.randn(shape, dtype=spec.dtype, device=device)
        else:
            piece = torch.rand(shape, dtype=spec.dtype, device=device)
            piece.clamp_(min=torch.finfo(spec.dtype).eps / 4)
        drawn.update(zip(names, piece.unbind(), strict=True))
    return drawn


def _transformed(flat: Tensor, layout: NoiseLayout) -> dict[str, Tensor]:
    """Cut one flat draw into the noise of each node, in the order of the layout."""
    if layout.normals:
        normal = flat[: layout.normals]
        normal.mul_(2.0).sub_(1.0).erfinv_().mul_(math.sqrt(2.0))
    drawn: dict[str, Tensor] = {}
    start = 0
    for spec, names in layout.groups:
        size = len(names) * math.prod(spec.shape)
        piece = rounded(flat[start : start + size], spec)
        start += size
        drawn.update(zip(names, piece.view(len(names), *spec.shape).unbind(), strict=True))
    return drawn if len(layout.groups) == 1 else {name: drawn[name] for name in layout.names}


def rounded(piece: Tensor, spec: NoiseSpec) -> Tensor:
    """Round to the type of a node, and keep what is uniform below 1."""
    if spec.dtype == torch.float64:
        return piece
    cast = piece.to(spec.dtype)
    return cast if spec.kind == "normal" else cast.clamp_(max=1.0 - torch.finfo(spec.dtype).eps / 2)
