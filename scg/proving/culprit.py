"""The culprit: which random variable it is whose estimator makes the mean gradient wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from scg.errors import ScgError
from scg.program.program import Program
from scg.proving.emitted import emitted, reading
from scg.proving.quadrature import integrated
from scg.proving.truth import Truth
from scg.verification.draws import controls_still

FAR = 1e-5
"""A relative difference from which on a gradient is wrong."""


def culprit(
    program: Program, inputs: Mapping[str, Any], truth: Truth, live: Mapping[str, Tensor]
) -> str | None:
    """Return the random variable that is wrong where all others are estimated by their score, if one is."""
    policy = program.policy
    if len(policy) == 1:
        return next(iter(policy))
    exact = truth.at(live)
    for name, estimator in policy.items():
        others = {other: "score" for other in policy if other != name}
        try:
            options = replace(
                program._options, policy={**others, name: estimator}, keep=(), allow_biased=True
            )
            alone = Program(program._ir, options)
            alone.prepare(**inputs)
            with controls_still(alone), torch.enable_grad():
                what = emitted(alone, inputs)
                _, found = integrated(what, reading(what), live, what.state, 0)
        except ScgError:
            continue
        if float((found - exact).abs().max()) > FAR * (float(exact.abs().max()) + 1e-12):
            return name
    return None
