"""The reference: the gradient that means are held against, exact or of a long run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scg.comparison.running import gradients
from scg.errors import ScgError
from scg.nodes.ir import IR
from scg.noise import substream
from scg.oracle.exact import gradient_of
from scg.program.program import Program
from scg.verification.draws import controls_still
from scg.verification.sequential import Moments

POINTS = (24, 40)
"""Two orders of quadrature, which have to agree for either to count as exact."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A gradient [entries], and its standard error, 0 where it is exact; ``name`` says what it is."""

    name: str
    gradient: Tensor
    error: Tensor

    @property
    def length(self) -> float:
        """The length of the gradient."""
        return float(self.gradient.norm())


def exact(ir: IR, inputs: Mapping[str, Any], names: Sequence[str], limit: int) -> Reference | None:
    """Return the exact gradient of a graph, or None where there is none."""
    try:
        coarse, fine = (gradient_of(ir, inputs, points=points, limit=limit) for points in POINTS)
    except ScgError:
        return None
    one, other = (torch.cat([found[name].reshape(-1) for name in names]) for found in (coarse, fine))
    eps = torch.finfo(other.dtype).eps
    if not torch.allclose(one, other, rtol=0.0, atol=eps**0.5 * float(other.abs().max()) + 64 * eps):
        return None
    return Reference("the exact gradient", other.double().cpu(), torch.zeros(len(other), dtype=torch.float64))


def long_run(
    program: Program, inputs: Mapping[str, Any], names: Sequence[str], *, draws: int, seed: int
) -> Reference:
    """Return the mean gradient of many runs of a program that is taken to be right."""
    moments = Moments(sum(program.get_parameter(name).numel() for name in names))
    with controls_still(program), torch.enable_grad():
        for rows in gradients(program, inputs, names, draws=draws, seed=substream(seed, "reference")):
            moments.add(rows)
    return Reference(f"a run of {draws:,} draws of the score function", moments.mean, moments.error)
