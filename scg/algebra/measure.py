"""How probable a path is: between what its comparisons put noise, and the extent of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy as sp

from scg.algebra.paths import Cut, Path
from scg.errors import UnreadableError

Case = Mapping[sp.Expr, bool]
"""Which expressions in the parameters are positive."""
Extents = dict[sp.Symbol, tuple[sp.Expr, sp.Expr]]
"""Between what each noise is."""


def extents_of(path: Path, kinds: Mapping[sp.Symbol, str], case: Case) -> Extents | None:
    """Return the interval of every noise that a path cuts, or None if one is empty in a case."""
    found: Extents = {}
    order = Order(kinds, case)
    for noise in {*path.lower, *path.upper}:
        ends = (ZERO, ONE) if kinds[noise] == "uniform" else (LEAST, MOST)
        low, high = ends
        for cut in path.lower.get(noise, []):
            low = cut if order.is_above(cut, low) else low
        for cut in path.upper.get(noise, []):
            high = cut if order.is_above(high, cut) else high
        if not order.is_above(high, low):
            return None
        found[noise] = (low.at, high.at)
    return found


ZERO, ONE = Cut(sp.S.Zero, sp.S.Zero, "end"), Cut(sp.S.One, sp.S.One, "end")
LEAST, MOST = Cut(-sp.oo, -sp.oo, "far"), Cut(sp.oo, sp.oo, "far")
ABOVE_0, BELOW_1 = ("odds", "gumbel", "log"), ("odds", "gumbel", "rest")
"""Forms of cuts that are above 0, or below 1, for all parameters."""


@dataclass(frozen=True)
class Order:
    """The order of cuts, which makes cases of the parameters where it is not plain."""

    kinds: Mapping[sp.Symbol, str]
    case: Case

    def is_above(self, one: Cut, other: Cut) -> bool:
        """Whether one cut is above another."""
        if LEAST in (one, other) or MOST in (one, other):
            return other == LEAST or one == MOST
        if (other == ZERO and one.form in ABOVE_0) or (one == ONE and other.form in BELOW_1):
            return True
        if (one == ZERO and other.form in ABOVE_0) or (other == ONE and one.form in BELOW_1):
            return False
        gap = one.above(other)
        found = Path(frozenset(self.kinds), self.case).known(gap)
        if found is None and gap.free_symbols & set(self.kinds):
            raise UnreadableError("where noise is cut depends on other noise")
        return Path(case=self.case).decide(gap) if found is None else found


def mass_of(path: Path, extents: Extents, kinds: Mapping[sp.Symbol, str]) -> sp.Expr:
    """Return the probability of a path."""
    mass: sp.Expr = sp.Integer(1)
    for noise, (low, high) in extents.items():
        mass *= _below(high, kinds[noise]) - _below(low, kinds[noise])
    for made in path.choices:
        mass *= sp.exp(made.logits[made.index]) / sp.Add(*(sp.exp(logit) for logit in made.logits))
    return mass


def _below(at: sp.Expr, kind: str) -> sp.Expr:
    """Return the probability of noise below a number."""
    return at if kind == "uniform" else (1 + sp.erf(at / sp.sqrt(2))) / 2
