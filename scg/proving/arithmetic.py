"""The emitted arithmetic: its mean over all noise, for all parameters, cut where its own comparisons cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy as sp

from scg.algebra.expectation import Base, mean
from scg.algebra.model import Case
from scg.algebra.paths import Cut, Path, UndecidedError, every
from scg.algebra.zero import is_zero, tidy
from scg.errors import UnreadableError
from scg.proving.emitted import Reading

Extents = dict[sp.Symbol, tuple[sp.Expr, sp.Expr]]
"""Between what each noise is."""


@dataclass(frozen=True, eq=False)
class Way:
    """One way through a program: the path, where noise is on it, how probable it is, and the gradient."""

    path: Path
    extents: Extents
    mass: sp.Expr
    gradient: list[sp.Expr]


def ways(reading: Reading, case: Case) -> list[Way]:
    """Return every way that a program can go where the parameters are in a case."""
    noise = frozenset(reading.kinds)
    found = []
    for path, gradient in every(reading.on, Path(noise, case)):
        extents = extents_of(path, reading.kinds, case)
        if extents is not None:
            mass = mass_of(path, extents, reading.kinds)
            found.append(Way(path, extents, mass, [tidy(entry) for entry in gradient]))
    return found


def expected(several: list[Way], kinds: Mapping[sp.Symbol, str]) -> list[sp.Expr]:
    """Return the mean gradient, in closed form."""
    totals: list[sp.Expr] = [sp.Integer(0)] * len(several[0].gradient)
    for way in several:
        cut = {*way.path.lower, *way.path.upper, *(u for made in way.path.choices for u in made.noise)}
        for place, entry in enumerate(way.gradient):
            left = sorted(entry.free_symbols & cut, key=str)
            if left:
                raise UnreadableError(
                    f"the gradient depends on the noise {left[0]} beyond what it is compared with"
                )
            totals[place] += averaged(way.mass * entry, kinds)
    return totals


def averaged(entry: sp.Expr, kinds: Mapping[sp.Symbol, str]) -> sp.Expr:
    """Return the mean over what noise is left."""
    bases = []
    for symbol in sorted(entry.free_symbols & set(kinds), key=str):
        if kinds[symbol] == "normal":
            bases.append(Base(symbol, "normal"))
            continue
        wait = sp.Symbol(f"{symbol}*", positive=True)
        for logarithm in (sp.log(symbol), sp.log(1 - symbol)):
            replaced = entry.subs(logarithm, -wait)
            if not replaced.has(symbol):
                entry, base = replaced, Base(wait, "exponential")
                break
        else:
            base = Base(symbol, "uniform")
        bases.append(base)
    return mean(entry, tuple(bases))


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


def settle(difference: sp.Expr) -> bool:
    """Whether a difference is 0 for all parameters, where need be in further cases."""
    if is_zero(difference):
        return True
    for left in sorted(difference.atoms(sp.Abs, sp.Max, sp.Min), key=str):
        argument = left.args[0] if isinstance(left, sp.Abs) else left.args[0] - left.args[1]
        raise UndecidedError(argument)
    return False
