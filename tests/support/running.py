"""Programs at work: what one backward leaves in ``.grad``, and what tests do to a program before that."""

from __future__ import annotations

import pickle
from typing import Any

import torch
from torch import Tensor, nn

import scg


def awake(program: scg.Program) -> scg.Program:
    """Move what starts where it has no effect: the scales of networks from 0, and eta from 1."""
    with torch.no_grad():
        for name, parameter in program.named_parameters():
            if name.endswith(("net.scale", "eta.log")):
                parameter.fill_(0.7)
    return program


def grads(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of what is in ``.grad``."""
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def gradients(program: scg.Program, **given: Any) -> dict[str, Tensor]:
    """Return what one backward leaves in the parameters."""
    program.zero_grad()
    program(**given).loss.backward()
    return grads(program)


def pickled(program: scg.Program) -> scg.Program:
    """Return what comes back from a pickle."""
    again = pickle.loads(pickle.dumps(program))
    assert isinstance(again, scg.Program)
    return again


def label(item: Any) -> str:
    """Name an argument of a test, the same in every process."""
    return str(getattr(item, "__name__", item))


def is_mean(draws: Tensor, expected: Tensor, *, within: float = 0.05) -> bool:
    """Say whether draws average to what is expected, by four standard errors, each small beside it."""
    error = draws.std(0) / draws.shape[0] ** 0.5
    sharp = bool((error < within * expected.norm()).all())
    return sharp and bool(((draws.mean(0) - expected).abs() < 4 * error + 1e-6).all())
