"""Draws: the gradient that each of many runs of a program leaves, all in one call where functions allow."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scg.evaluation.probing import undisturbed

Noise = Mapping[str, Tensor]
ENTRIES = 2**23
"""The most numbers that the gradients of one call may have."""
TRIED = 3
"""Runs for which gradients of many are held against those of one at a time, before they are believed."""


@dataclass(frozen=True)
class Drawer:
    """Gradients of a program on fixed inputs, by run: ``is_batched`` tells whether many are found at once.

    ``names`` are the parameters that they are of.
    """

    program: nn.Module
    inputs: Mapping[str, Any]
    names: tuple[str, ...]
    is_batched: bool

    @property
    def device(self) -> torch.device:
        """Where gradients are."""
        return self.program.get_parameter(self.names[0]).device

    @property
    def chunk(self) -> int:
        """How many runs to make in one call."""
        size = sum(self.program.get_parameter(name).numel() for name in self.names)
        return min(4096, max(1, ENTRIES // max(size, 1))) if self.is_batched else 256

    def __call__(self, noise: Noise) -> Tensor:
        """Return the gradients [n, entries] of runs under noise [n, ...]."""
        if self.is_batched:
            return _batched(self.program, self.inputs, self.names, noise)
        return _looped(self.program, self.inputs, self.names, noise)


def drawer(program: nn.Module, inputs: Mapping[str, Any], names: Sequence[str], noise: Noise) -> Drawer:
    """Return what draws gradients: many at once where that gives what one at a time does, on some noise."""
    few = {name: value[:TRIED] for name, value in noise.items()}
    wanted = _looped(program, inputs, names, few)
    try:
        found = _batched(program, inputs, names, few)
    except Exception:  # noqa: BLE001 - of the user's functions
        return Drawer(program, inputs, tuple(names), is_batched=False)
    tolerance = 1e-9 if wanted.dtype == torch.float64 else 1e-4
    agrees = torch.allclose(found, wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max()))
    return Drawer(program, inputs, tuple(names), is_batched=agrees)


@contextmanager
def controls_still(program: nn.Module) -> Iterator[None]:
    """Have what estimators learn stay as it is, so that draws do not depend on each other."""
    parts = [part for part in program.get_submodule("controls").modules() if _is_own(part)]
    modes = [part.training for part in parts]
    with undisturbed({"": program}):
        for part in parts:
            part.training = False
        try:
            yield
        finally:
            for part, mode in zip(parts, modes, strict=True):
                part.training = mode


def _is_own(module: nn.Module) -> bool:
    return type(module).__module__.startswith("scg.")


def _batched(program: nn.Module, inputs: Mapping[str, Any], names: Sequence[str], noise: Noise) -> Tensor:
    held = {name: parameter.detach() for name, parameter in program.named_parameters()}
    live = {name: held[name] for name in names}

    def loss(live: dict[str, Tensor], noise: Noise) -> Tensor:
        given = {**inputs, "noise": noise}
        found: Tensor = torch.func.functional_call(program, {**held, **live}, kwargs=given).loss
        return found

    many = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0), randomness="different")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        found = many(live, dict(noise))
    count = len(next(iter(noise.values())))
    return torch.cat([found[name].reshape(count, -1) for name in names], 1)


def _looped(program: nn.Module, inputs: Mapping[str, Any], names: Sequence[str], noise: Noise) -> Tensor:
    parameters = [program.get_parameter(name) for name in names]
    count = len(next(iter(noise.values()))) if noise else 1
    rows = []
    for index in range(count):
        one = {name: value[index] for name, value in noise.items()}
        with torch.enable_grad():
            loss = program(noise=one, **inputs).loss
        found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([part.reshape(-1) for part in found]))
    return torch.stack(rows)
