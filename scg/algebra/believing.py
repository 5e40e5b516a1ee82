"""Believing: what was read of a computation is held against the computation, in value and gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import sympy as sp

from scg.errors import UnreadableError

POINTS = 3
"""Where a reading is held against what it is of."""


def agree(what: str, read: Sequence[sp.Expr], values: Sequence[float], single: bool) -> None:
    """Refuse a reading whose numbers are not those of the computation, up to rounding."""
    size = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    rounding = (1e-5 if single else 1e-11) * (size + 1e-3)
    for expr, value in zip(read, values, strict=True):
        found = complex(sp.N(expr, 30))
        if not math.isfinite(value):
            continue
        close = rounding + (1e-3 if single else 1e-7) * abs(value)
        if not abs(found - value) <= close:
            raise UnreadableError(
                f"{what} was read as {found.real:.10g} where it is {value:.10g}: "
                "a function there is not made of torch's operations alone, as with NumPy, or does not "
                "differentiate what it computes. scg.symbolic.register a twin of it"
            )
