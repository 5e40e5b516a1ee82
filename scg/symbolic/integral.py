"""Integrals over noise that are left in a formula, and worked out as numbers where all else is one."""

from __future__ import annotations

from typing import Any

import mpmath  # type: ignore[import-untyped]
import sympy as sp


class OverNoise(sp.Integral):  # type: ignore[misc]
    """An integral that ``evalf`` works out by a function of numbers, many times faster than term by term."""

    def _eval_evalf(self, prec: int) -> Any:
        names = [limit[0] for limit in self.limits]
        if self.free_symbols:
            return None
        function = sp.lambdify(names, self.function, "mpmath")
        with mpmath.workprec(prec + 10):
            ends = [[mpmath.mpf(sp.Float(sp.N(end, 30), 30)) for end in limit[1:]] for limit in self.limits]
            return sp.Float(mpmath.quad(function, *ends), precision=prec)
