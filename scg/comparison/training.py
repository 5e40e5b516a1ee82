"""Training: what estimators learn or remember, by some runs before anything is measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from scg.noise import substream
from scg.program.program import Program

RATE = 0.02


def train(program: Program, inputs: Mapping[str, Any], *, steps: int, seed: int) -> None:
    """Run a program so often, each time with a step of Adam for what estimators learn; the graph stays.

    The rate falls to 0 over the steps, and Adam keeps its largest second moments (Reddi et al., 2018).
    """
    own = [p for p in program.control_parameters() if p.requires_grad]
    if not own and not any(True for _ in program.controls.buffers()):
        return
    optimizer = torch.optim.Adam(own, lr=RATE, amsgrad=True) if own else None
    for step in range(steps):
        loss = program(seed=substream(seed, f"train {step}"), **inputs).loss
        if optimizer is not None:
            found = torch.autograd.grad(loss, own, allow_unused=True, materialize_grads=True)
            for parameter, gradient in zip(own, found, strict=True):
                parameter.grad = gradient
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - step / steps)
            optimizer.step()


@contextmanager
def forgotten(program: Program) -> Iterator[None]:
    """Leave what estimators learn as it was: networks that were given belong to others."""
    saved = [(p, p.detach().clone(), p.grad) for p in program.control_parameters()]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, old, gradient in saved:
                parameter.copy_(old)
                parameter.grad = gradient
