"""Images: intensities of pixels for training and validation, and coins thrown with them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import scg
from scg.runs import seed_of

VALIDATION = 1 / 6


@dataclass(frozen=True, eq=False)
class Images:
    """Images in rows, [image, pixel], of intensities from 0 to 1; ``height`` times ``width`` pixels."""

    name: str
    train: Tensor
    valid: Tensor
    height: int
    width: int

    @property
    def mean(self) -> Tensor:
        """The mean of the images to train on, [pixel]."""
        return self.train.mean(0)


def split(name: str, pixels: Tensor, shape: tuple[int, int], seed: int) -> Images:
    """Return images [image, pixel], of which a sixth, chosen by a seed, is for validation."""
    generator = torch.Generator().manual_seed(seed_of(seed, "split"))
    order = torch.randperm(len(pixels), generator=generator)
    held = max(1, round(len(pixels) * VALIDATION))
    if len(pixels) < 2:
        raise scg.RunError(f"{name} has {len(pixels)} images, and two at least are needed")
    return Images(name, pixels[order[held:]], pixels[order[:held]], *shape)


def binarised(intensities: Tensor, seed: int) -> Tensor:
    """Return pixels that are 1 with the probability of their intensity, a function of the seed."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(intensities.shape, generator=generator, dtype=torch.float64)
    return (noise < intensities.double()).to(intensities.dtype)


def intensities(source: Path | str, found: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Return images [image, pixel] of intensities, and their height and width.

    Images are [image, height, width], or [image, pixel] of squares; whole numbers are bytes.
    """
    if found.dim() not in (2, 3) or not found.numel():
        raise scg.RunError(f"{source} has the shape {[*found.shape]}, and images are [image, height, width]")
    if found.dim() == 3:
        shape = (found.shape[1], found.shape[2])
    else:
        side = math.isqrt(found.shape[1])
        shape = (side, side) if side * side == found.shape[1] else (1, found.shape[1])
    whole = not found.dtype.is_floating_point and found.dtype != torch.bool
    flat = found.flatten(1).float() / (255 if whole else 1)
    low, high = float(flat.min()), float(flat.max())
    if not (low >= 0 and high <= 1):
        raise scg.RunError(
            f"{source} has values from {low:g} to {high:g}: intensities are bytes, or from 0 to 1"
        )
    return flat, shape
