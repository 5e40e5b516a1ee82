"""Arguments and parameters of functions off their values; what is held comes back, whatever happens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Moves = Sequence[tuple[Tensor, Tensor]]
"""Tensors that a function holds, each with what it holds instead."""


@contextmanager
def holding(moves: Moves) -> Iterator[None]:
    """Let tensors hold other numbers; the very storages that they had come back, whatever happens.

    No version counter moves, so that a backward that is still to come does not notice.
    """
    before = [(tensor, tensor.data) for tensor, _ in moves]
    try:
        for tensor, other in moves:
            tensor.data = other
        yield
    finally:
        for tensor, data in before:
            tensor.data = data


def moved_parameters(tensors: Iterable[Tensor], seed: int, scale: float) -> Moves:
    """Return parameters with numbers off those that they hold: of their size, or as an initialisation's."""
    scale = max(-LARGEST, min(scale, LARGEST))
    generator = torch.Generator().manual_seed(seed)
    distinct = {id(tensor): tensor for tensor in tensors}.values()
    with torch.no_grad():
        return [(t, _off(t, generator, scale)) for t in distinct if t.is_floating_point() and t.numel()]


def parameters_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Return the parameters of some modules, each once."""
    found = {id(p): p for module in modules for p in module.parameters()}
    return [p for p in found.values() if not isinstance(p, nn.parameter.UninitializedParameter)]


def moved(tensor: Tensor, generator: torch.Generator, scale: float) -> Tensor:
    """Return an argument off its values: real numbers at a scale, of both signs, and other booleans.

    Integers may be indices, so that they are drawn among those that are there.
    """
    if tensor.is_floating_point():
        return scale * _signed(tensor, generator) + tensor * (abs(scale) < 1)
    if not tensor.numel() or tensor.is_complex():
        return tensor
    low, high = (0, 1) if tensor.dtype is torch.bool else (int(tensor.min()), int(tensor.max()))
    draw = torch.randint(low, high + 1, tensor.shape, generator=generator)
    return draw.to(device=tensor.device, dtype=tensor.dtype)


def moved_points(point: Mapping[str, Tensor], wrt: str, seed: int) -> list[dict[str, Tensor]]:
    """Return further points, at which every tensor but one is off its values."""
    found = []
    for scale in SCALES:
        generator = torch.Generator().manual_seed(seed)
        found.append({k: t if k == wrt else moved(t.detach(), generator, scale) for k, t in point.items()})
    return found


SCALES = (1.0, -1.0, 0.3, 12.0, -12.0)
"""Of the arguments, at every further point: each number is met with both signs, and so large that what
sleeps until then wakes."""
LARGEST = 2.0
"""Of what is added to parameters: with larger ones, deep networks are steps for all that a probe can see."""


def _off(tensor: Tensor, generator: torch.Generator, scale: float) -> Tensor:
    size = float(tensor.detach().double().square().mean().sqrt().nan_to_num(0.0, 0.0, 0.0))
    if size < 1e-4:
        size = (tensor.numel() / tensor.shape[0]) ** -0.5 if tensor.dim() > 1 else 0.5
    return tensor.detach() + scale * size * _signed(tensor, generator)


def _signed(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw numbers of both signs, none of which is near 0."""
    draw = 2 * torch.rand(like.shape, generator=generator, dtype=torch.float64) - 1
    return (draw + 0.5 * draw.sign()).to(device=like.device, dtype=like.dtype)
