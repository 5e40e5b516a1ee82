"""Unbiased: an assertion for tests that the gradient of a program is right."""

from __future__ import annotations

from typing import Any

from scg.program.program import Program
from scg.verification.verdict import Verification
from scg.verification.verify import verify


def assert_unbiased(
    program: Program,
    *,
    resolution: float = 0.05,
    alpha: float = 1e-4,
    draws: int = 2**20,
    seed: int = 0,
    **inputs: Any,
) -> Verification:
    """Raise an AssertionError unless ``scg.verify`` finds the gradient of a ``program`` unbiased.

    ``resolution``, ``alpha``, ``draws`` and ``inputs`` are those of ``scg.verify``, and ``seed`` its noise.
    What ``draws`` runs cannot tell fails as well. Returns the verdict.
    """
    found = verify(program, resolution=resolution, alpha=alpha, draws=draws, noise=seed, **inputs)
    if not found:
        raise AssertionError(str(found))
    return found
