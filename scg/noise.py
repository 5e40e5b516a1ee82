"""Base noise: counter-based, keyed by (seed, stream, index), the same eager and compiled."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

GOLDEN = -7046029254386353131
FIRST, SECOND = -4658895280553007687, -7723592293110705685
MASK_34, MASK_37, MASK_33 = (1 << 34) - 1, (1 << 37) - 1, (1 << 33) - 1
MASK_52 = (1 << 52) - 1


@dataclass(frozen=True)
class NoiseSpec:
    """The base noise of one stochastic node: ``kind`` is "uniform" on the open (0, 1), or "normal"."""

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype


def _mix(state: Tensor) -> Tensor:
    """Scramble 64-bit integers (the finalizer of SplitMix64: Steele, Lea and Flood, 2014)."""
    state = (state ^ ((state >> 30) & MASK_34)) * FIRST
    state = (state ^ ((state >> 27) & MASK_37)) * SECOND
    return state ^ ((state >> 31) & MASK_33)


def substream(seed: int, stream: str) -> int:
    """Derive the seed of a named stream, independent of every other.

    >>> substream(0, "b") != substream(0, "c") != substream(1, "b")
    True
    """
    key = torch.tensor([seed ^ (zlib.crc32(stream.encode()) << 20)], dtype=torch.int64)
    return int(_mix(_mix(key) + GOLDEN))


def uniform(seed: int, count: int, device: torch.device | None = None) -> Tensor:
    """Draw ``[count]`` float64 numbers, uniform on (0, 1) and never at its ends.

    >>> float(uniform(0, 100_000).mean().round(decimals=2))
    0.5
    """
    key = _mix(torch.full((1,), seed, dtype=torch.int64, device=device) + GOLDEN)
    counter = torch.arange(1, count + 1, dtype=torch.int64, device=device)
    bits = _mix(_mix(counter * GOLDEN + key) ^ key)
    return ((bits >> 12) & MASK_52).to(torch.float64).add_(0.5).mul_(2.0**-52)


def draw_noise(
    seed: int, specs: Sequence[NoiseSpec], device: torch.device | None = None
) -> dict[str, Tensor]:
    """Draw the noise of every node in one call; a node's noise depends on the seed and the shapes only."""
    ordered = sorted(specs, key=lambda spec: spec.kind)
    sizes = [math.prod(spec.shape) for spec in ordered]
    flat = uniform(seed, sum(sizes), device)
    normals = sum(size for spec, size in zip(ordered, sizes, strict=True) if spec.kind == "normal")
    drawn: dict[str, Tensor] = {}
    if normals:
        flat[:normals] = torch.erfinv(flat[:normals].mul(2.0).sub_(1.0)).mul_(math.sqrt(2.0))
    casts = {spec.dtype: _cast(flat, spec.dtype, normals) for spec in ordered}
    pieces = {dtype: cast.split(sizes) for dtype, cast in casts.items()}
    for index, spec in enumerate(ordered):
        drawn[spec.name] = pieces[spec.dtype][index].view(spec.shape)
    return {spec.name: drawn[spec.name] for spec in specs}


def _cast(flat: Tensor, dtype: torch.dtype, normals: int) -> Tensor:
    """Round to ``dtype`` and keep what is uniform below 1."""
    if dtype == torch.float64:
        return flat
    cast = flat.to(dtype)
    cast[normals:].clamp_(max=1.0 - torch.finfo(dtype).eps / 2)
    return cast
