"""Values for probes, and a way to run probes that leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from scg.evaluation.densities import Density
from scg.evaluation.trace import Trace
from scg.laws import Law
from scg.nodes import trees as pytree
from scg.nodes.records import Record
from scg.noise import reseed
from scg.probes.generators import steady_generators


def spread(record: Record, density: Density, batch: torch.Size) -> Tensor:
    """Draw an example value: over the whole support where it is finite, so that probes see every case."""
    law, parameters = density.law, dict(density.parameters)
    if law.finite:
        support = law.support(parameters)
        return support[torch.randint(len(support), batch)]
    return sampled(law, parameters, batch)


def other_than(law: Law, parameters: dict[str, Tensor], value: Tensor) -> Tensor:
    """Return another outcome of a finite law for every element of a value."""
    support = law.support(parameters)
    rank = law.value_rank
    batch = value.shape[: value.dim() - rank]
    same = support.view(len(support), *(1,) * len(batch), *support.shape[1:]) == value
    same = same.flatten(len(batch) + 1).all(-1) if rank else same
    step = torch.randint(1, max(len(support), 2), batch, device=value.device)
    other: Tensor = support[(same.int().argmax(0) + step) % len(support)]
    return other


def sampled(law: Law, parameters: dict[str, Tensor], batch: torch.Size) -> Tensor:
    """Draw a value of the given batch shape from torch's global generator."""
    if law.noise == "value":
        return law.sample(parameters, batch)
    shape = law.noise_shape(parameters, batch)
    like = next(iter(parameters.values()))
    dtype = torch.promote_types(like.dtype, torch.float32) if like.is_floating_point() else torch.float32
    if law.noise == "normal":
        return law.draw(parameters, torch.randn(shape, dtype=dtype, device=like.device))
    eps = torch.finfo(dtype).eps
    return law.draw(parameters, torch.rand(shape, dtype=dtype, device=like.device).clamp(eps, 1 - eps))


def shifted(worlds: Sequence[Trace], names: Iterable[str], scale: float) -> list[Trace]:
    """Return evaluations in which some nodes, alike in all of them, are moved off their values."""
    several = list(names)
    moves: dict[tuple[str, int], Tensor] = {}

    def leaf(name: str, index: int, tensor: Any) -> Any:
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            return tensor
        move = moves.setdefault((name, index), scale * torch.randn_like(tensor))
        return tensor + move

    def value(name: str, held: Any) -> Any:
        leaves, spec = pytree.tree_flatten(held)
        return pytree.tree_unflatten([leaf(name, i, item) for i, item in enumerate(leaves)], spec)

    return [
        replace(world, values={**world.values, **{name: value(name, world.values[name]) for name in several}})
        for world in worlds
    ]


@contextmanager
def undisturbed(modules: Mapping[str, nn.Module], seed: int = 0) -> Iterator[None]:
    """Run probes under a fixed seed, and leave generators and buffers of modules as they were."""
    buffers = [buffer for module in modules.values() for buffer in module.buffers()]
    saved = [buffer.detach().clone() for buffer in buffers]
    with steady_generators(), torch.no_grad():
        reseed(seed)
        try:
            yield
        finally:
            for buffer, old in zip(buffers, saved, strict=True):
                buffer.copy_(old)
