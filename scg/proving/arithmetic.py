"""The emitted arithmetic: its mean over all noise, for all parameters, cut where its own comparisons cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import sympy as sp

from scg.algebra.expectation import Base, mean
from scg.algebra.measure import Case, Extents, extents_of, mass_of
from scg.algebra.paths import Path, UndecidedError, every
from scg.algebra.zero import is_zero, tidy
from scg.errors import UnreadableError
from scg.proving.emitted import POISSON, Reading

NO_RATES: Mapping[sp.Symbol, sp.Expr] = MappingProxyType({})


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
        compared = (u for u in (*path.lower, *path.upper) if reading.kinds[u] == POISSON)
        if (one := next(compared, None)) is not None:
            raise UnreadableError(f"the program compares {one}, which is Poisson, with something")
        extents = extents_of(path, reading.kinds, case)
        if extents is not None:
            mass = mass_of(path, extents, reading.kinds)
            found.append(Way(path, extents, mass, [tidy(entry) for entry in gradient]))
    return found


def expected(
    several: list[Way], kinds: Mapping[sp.Symbol, str], rates: Mapping[sp.Symbol, sp.Expr] = NO_RATES
) -> list[sp.Expr]:
    """Return the mean gradient, in closed form; ``rates`` are those of values of Poisson variables."""
    totals: list[sp.Expr] = [sp.Integer(0)] * len(several[0].gradient)
    for way in several:
        cut = {*way.path.lower, *way.path.upper, *(u for made in way.path.choices for u in made.noise)}
        if left := sorted(way.mass.free_symbols & cut, key=str):
            raise UnreadableError(f"where noise is cut depends on {left[0]}, which is cut itself")
        for place, entry in enumerate(way.gradient):
            if left := sorted(entry.free_symbols & cut, key=str):
                raise UnreadableError(
                    f"the gradient depends on the noise {left[0]} beyond what it is compared with"
                )
            totals[place] += averaged(way.mass * entry, kinds, rates)
    return totals


def averaged(
    entry: sp.Expr, kinds: Mapping[sp.Symbol, str], rates: Mapping[sp.Symbol, sp.Expr] = NO_RATES
) -> sp.Expr:
    """Return the mean over what noise is left."""
    bases = []
    for symbol in sorted(entry.free_symbols & set(kinds), key=str):
        if kinds[symbol] == POISSON:
            if symbol not in rates:
                raise UnreadableError(f"the rate of the Poisson variable {symbol} is not known")
            bases.append(Base(symbol, POISSON, rates[symbol]))
            continue
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


def settle(difference: sp.Expr) -> bool:
    """Whether a difference is 0 for all parameters, where need be in further cases."""
    if is_zero(difference):
        return True
    for left in sorted(difference.atoms(sp.Abs, sp.Max, sp.Min), key=str):
        argument = left.args[0] if isinstance(left, sp.Abs) else left.args[0] - left.args[1]
        raise UndecidedError(argument)
    return False
