"""How probable a path is: between what its comparisons put noise, and the extent of that."""

from __future__ import annotations

from collections.abc import Mapping

import sympy as sp

from scg.algebra.paths import Cut, Path
from scg.errors import UnreadableError

Case = Mapping[sp.Expr, bool]
"""Which expressions in the parameters are positive."""
Extents = dict[sp.Symbol, tuple[sp.Expr, sp.Expr]]
"""Between what each noise is."""


def extents_of(path: Path, kinds: Mapping[sp.Symbol, str], case: Case) -> Extents | None:
    """Return between what the noise that is cut is on a path, or None where nothing is, in a case."""
    found: Extents = {}
    for noise in {*path.lower, *path.upper}:
        low = _extreme(path.lower.get(noise, []), False, kinds, case)
        high = _extreme(path.upper.get(noise, []), True, kinds, case)
        if low is not None and high is not None and not _decided(high.above(low), kinds, case):
            return None
        ends = (sp.S.Zero, sp.S.One) if kinds[noise] == "uniform" else (-sp.oo, sp.oo)
        found[noise] = (ends[0] if low is None else low.at, ends[1] if high is None else high.at)
    return found


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


def _extreme(bounds: list[Cut], is_upper: bool, kinds: Mapping[sp.Symbol, str], case: Case) -> Cut | None:
    """Return the least of the upper bounds, or the greatest of the lower ones."""
    if not bounds:
        return None
    best = bounds[0]
    for bound in bounds[1:]:
        is_above = _decided(bound.above(best), kinds, case)
        best = bound if is_above != is_upper else best
    return best


def _decided(gap: sp.Expr, kinds: Mapping[sp.Symbol, str], case: Case) -> bool:
    if gap.free_symbols & set(kinds):
        raise UnreadableError("where noise is cut depends on other noise")
    return Path(case=case).decide(gap)
