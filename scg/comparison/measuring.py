"""Measuring: what one run of a program is worth, by many of them beside a reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from scg.choosing.expense import evaluations
from scg.comparison.comparison import Row
from scg.comparison.reference import Reference
from scg.comparison.running import gradients
from scg.comparison.training import forgotten, train
from scg.errors import GraphError
from scg.evaluation.probing import undisturbed
from scg.noise import substream
from scg.program.program import Program
from scg.verification.draws import controls_still
from scg.verification.sequential import Moments, quantile

CHANCE = 1e-4
"""How probable it is to see a bias where there is none."""
ROUNDING = 64
"""How many units in the last place of the largest gradient count for nothing."""


@dataclass(frozen=True)
class Demand:
    """How thoroughly policies are measured: runs to draw, to train what is learned, and to be timed."""

    draws: int
    steps: int
    repeats: int
    seed: int

    def __post_init__(self) -> None:
        """Refuse what is no number of runs, and one run, which has no variance."""
        for name, least in {"draws": 2, "steps": 0, "repeats": 1}.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise GraphError(f"{name}={value!r}: give a whole number, {least} or more")


def measured(
    name: str,
    program: Program,
    inputs: Mapping[str, Any],
    names: Sequence[str],
    reference: Reference | None,
    demand: Demand,
    *,
    seconds: float,
) -> Row:
    """Train what a program learns, run it often, and leave all of it as it was; a run takes ``seconds``."""
    moments, largest = Moments(sum(program.get_parameter(own).numel() for own in names)), torch.zeros(())
    with forgotten(program), undisturbed({"": program}, demand.seed), torch.enable_grad():
        train(program, inputs, steps=demand.steps, seed=substream(demand.seed, name))
        with controls_still(program), torch.enable_grad():
            for rows in gradients(program, inputs, names, draws=demand.draws, seed=demand.seed):
                moments.add(rows)
                largest = largest.maximum(rows.abs().max())
        dtype = program.get_parameter(names[0]).dtype
    ulp = ROUNDING * torch.finfo(dtype).eps * float(largest)
    deviation = moments.deviation.where(moments.deviation > ulp, 0.0)
    choices = program._prepared_for(inputs).choices
    bias, error, is_seen = _bias(moments, reference, ulp)
    return Row(
        name=name,
        evaluations=evaluations(choices) * (program._options.samples or 1),
        variance=float(deviation.square().sum()),
        seconds=seconds,
        bias=bias,
        error=error,
        is_seen=is_seen,
        is_declared=not all(own.unbiased for choice in choices.values() for own in choice.estimators),
    )


def _bias(moments: Moments, reference: Reference | None, ulp: float) -> tuple[float, float, bool]:
    """Return the bias relative to the reference, its standard error, and whether chance does not explain it.

    On average, the squared length of mean - reference is that of the bias and of the standard errors. Chance
    makes it longest, beside these, where all entries go together: then it is a normal number times them.
    """
    if reference is None or not reference.length:
        return math.nan, math.nan, False
    gap = float(((moments.mean - reference.gradient).abs() - ulp).clamp(min=0.0).norm())
    chance = float((moments.error.square() + reference.error.square()).sum().sqrt())
    bias = math.sqrt(max(gap**2 - chance**2, 0.0))
    return bias / reference.length, chance / reference.length, gap > quantile(CHANCE / 2) * chance
