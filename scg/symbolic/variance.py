"""The variance of the gradient that one run of a program leaves, entry by entry."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from scg.algebra.arrays import flat, number
from scg.algebra.measure import Case, Extents
from scg.algebra.paths import in_cases
from scg.errors import GraphError, UnreadableError
from scg.program.program import Program
from scg.proving.arithmetic import Way, averaged, ways
from scg.proving.emitted import Reading, emitted, reading
from scg.symbolic.closed import Entries, by_parameter, in_pieces
from scg.symbolic.integral import OverNoise
from scg.verification.draws import controls_still


def variance(program: Program, /, **inputs: Any) -> dict[str, Entries]:
    """Return the variance of the gradient that a run of a ``program`` leaves, by the names of the parameters.

    It is in the symbols of the parameters, as ``scg.symbolic.objective`` has them; what estimators have
    learned counts as it is now. Where noise acts beyond what it is compared with, as under REBAR, integrals
    over one noise each are left, which ``.evalf()`` works out. ``inputs`` are those of the program, taken
    from the examples where they are left out.

    >>> import torch, scg
    >>> g = scg.Graph()
    >>> b = g.sample("b", torch.distributions.Bernoulli, logits=g.param("theta", 0.0))
    >>> cost = g.cost("loss", b)
    >>> round(float(scg.symbolic.variance(scg.compile(g, "score"))["theta"].subs("theta", 0)), 4)
    0.0625
    """
    if not isinstance(program, Program):
        raise GraphError(f"scg.symbolic.variance takes a program, as scg.compile returns it, not {program!r}")
    program._ir.drawn_here("a variance")
    given = {**program._ir.store.examples, **inputs}
    program.prepare(**given)
    with controls_still(program), torch.enable_grad():
        what = emitted(program, given)
        found = reading(what)
    held = _held(found, what.state)

    def run(case: Case) -> list[sp.Expr]:
        several = ways(found, case)
        return [_spread(several, place, found, held) for place in range(len(several[0].gradient))]

    cases = list(in_cases(run))
    symbols = [symbol for own in found.live.values() for symbol in flat(own)]
    values = {
        symbol: in_pieces([(case, entries[place]) for case, entries in cases])
        for place, symbol in enumerate(symbols)
    }
    return by_parameter(found.live, values)


def _held(found: Reading, state: Mapping[str, Tensor]) -> dict[sp.Symbol, sp.Expr]:
    """Return what estimators have learned: logarithms of simple numbers as such."""
    held = {}
    for name, own in found.state.items():
        is_log = name.endswith(".log")
        value = state[name].exp() if is_log else state[name]
        numbers = (number(one, value.dtype) for one in value.reshape(-1).tolist())
        held.update({s: sp.log(one) if is_log else one for s, one in zip(flat(own), numbers, strict=True)})
    return held


def _spread(several: list[Way], place: int, found: Reading, held: dict[sp.Symbol, sp.Expr]) -> sp.Expr:
    """Return E g^2 - (E g)^2 of one entry."""
    first, second = sp.Integer(0), sp.Integer(0)
    for way in several:
        entry = way.gradient[place].xreplace(held)
        first += _mean(way, entry, 1, found)
        second += _mean(way, entry, 2, found)
    return second - first**2


def _mean(way: Way, entry: sp.Expr, power: int, found: Reading) -> sp.Expr:
    """Return the mean of a power of an entry on one way, times how probable that is."""
    noise = entry.free_symbols & set(found.kinds)
    if entry.free_symbols & {u for made in way.path.choices for u in made.noise}:
        raise UnreadableError("the gradient depends on the noise of a choice beyond what is chosen")
    uniform = sorted((s for s in noise if found.kinds[s] == "uniform"), key=str)
    if not uniform:
        return averaged(way.mass * entry**power, found.kinds)
    if others := sorted(noise - set(uniform), key=str):
        raise UnreadableError(f"the gradient depends on {others[0]} and on {uniform[0]} together")
    if moved := [s for s in uniform for end in way.extents.get(s, ()) if end.free_symbols & set(found.kinds)]:
        raise UnreadableError(f"where {moved[0]} is cut depends on other noise")
    widths = {s: way.extents.get(s, (sp.S.Zero, sp.S.One)) for s in uniform}
    density = way.mass / sp.Mul(*(high - low for low, high in widths.values()))
    return density * _integral(_parts(entry, uniform), power, widths)


def _parts(entry: sp.Expr, noise: list[sp.Symbol]) -> dict[frozenset[sp.Symbol], sp.Expr]:
    """Take a sum apart by the noise that is in it."""
    terms: dict[frozenset[sp.Symbol], sp.Expr] = {}
    for term in sp.Add.make_args(sp.expand_mul(entry)):
        key = frozenset(term.free_symbols & set(noise))
        terms[key] = terms.get(key, sp.Integer(0)) + term
    return terms


def _integral(parts: dict[frozenset[sp.Symbol], sp.Expr], power: int, widths: Extents) -> sp.Expr:
    """Return the integral of a power of a sum: of every product, over the noise that is in it."""
    total: sp.Expr = sp.Integer(0)
    for several in itertools.combinations_with_replacement(parts.items(), power):
        times = 1 if len(set(several)) == 1 else power
        total += times * _product([(set(key), term) for key, term in several], widths)
    return total


def _product(factors: list[tuple[set[sp.Symbol], sp.Expr]], widths: Extents) -> sp.Expr:
    """Integrate a product: factors without noise in common by themselves."""
    found: sp.Expr = sp.Integer(1)
    left, outside = list(factors), set(widths)
    while left:
        keys, term = left.pop()
        joined = [other for other in left if other[0] & keys]
        for other in joined:
            left.remove(other)
            keys, term = keys | other[0], term * other[1]
        if joined and any(other[0] & keys for other in left):
            left.append((keys, term))
            continue
        outside -= keys
        found *= OverNoise(term, *((s, *widths[s]) for s in sorted(keys, key=str))) if keys else term
    return found * sp.Mul(*(widths[s][1] - widths[s][0] for s in outside))
