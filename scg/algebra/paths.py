"""Paths: what comparisons give along one way through a computation, and every way there is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

import sympy as sp

from scg.algebra.zero import is_zero
from scg.errors import UnreadableError

T = TypeVar("T")
GUARD = 99
"""Numbers from which on a comparison is a guard against overflow, which is taken not to act."""
FAR = 500
"""The same where noise is compared, which may well be beyond 99."""
LARGEST = 10**15
"""Numbers beyond this are not met, and nothing is said of them."""
ROUNDING = sp.Rational(1, 10**14)
"""What a number that something is compared with is off a whole one where it keeps rounding away."""
MANY = 200
"""The most inequalities of which sums are made."""
LIMIT = 1024
"""The most ways through a computation that are followed."""


class UndecidedError(Exception):
    """A comparison of parameters on which the computation depends, and for which a case has to be made."""

    def __init__(self, expr: sp.Expr) -> None:
        """Keep what is compared with 0, in one form."""
        self.expr = primitive(expr)
        super().__init__(str(self.expr))


@dataclass(frozen=True)
class Choice:
    """An argmax of ``logits`` with Gumbel noise, of uniform ``noise``, and the ``index`` it has."""

    noise: tuple[sp.Symbol, ...]
    logits: tuple[sp.Expr, ...]
    index: int

    def is_that_of(self, logits: tuple[sp.Expr, ...]) -> bool:
        """Whether other logits choose the same at all noise: they differ by a constant."""
        gap = logits[0] - self.logits[0]
        return all(is_zero(b - a - gap) for a, b in zip(self.logits[1:], logits[1:], strict=True))


@dataclass(frozen=True)
class Cut:
    """Where noise is cut: ``at`` a number that rises with ``level``, among cuts of one form."""

    at: sp.Expr
    level: sp.Expr
    form: str

    def above(self, other: Cut) -> sp.Expr:
        """Return what is positive where this cut is above another."""
        return self.level - other.level if self.form == other.form else self.at - other.at


@dataclass
class Path:
    """One way through a computation: comparisons of ``noise`` are taken as ``given``, and then the first way.

    ``case`` says which expressions in the parameters are positive. ``lower`` and ``upper`` are the bounds
    that comparisons put on noise, and ``domain`` what is positive where no guard against overflow acts. At a
    ``point`` parameters have values, and all comparisons of them are known.
    """

    noise: frozenset[sp.Symbol] = frozenset()
    case: Mapping[sp.Expr, bool] = field(default_factory=dict)
    given: tuple[int, ...] = ()
    taken: list[tuple[int, int]] = field(default_factory=list)
    lower: dict[sp.Symbol, list[Cut]] = field(default_factory=dict)
    upper: dict[sp.Symbol, list[Cut]] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)
    domain: set[sp.Expr] = field(default_factory=set)
    point: Mapping[sp.Symbol, float] | None = None

    def noisy(self, expr: sp.Expr) -> set[sp.Symbol]:
        """Return the noise in an expression."""
        found: set[sp.Symbol] = expr.free_symbols & self.noise
        return found

    def known(self, expr: sp.Expr) -> bool | None:
        """Whether an expression is positive, where that is known without making a case of it."""
        expr = sp.expand(expr)
        if expr.is_number:
            return bool(expr > 0)
        constant, rest = expr.as_coeff_Add()
        scale = max(abs(factor) for factor in rest.as_coefficients_dict().values())
        constant, rest = constant / scale, rest / scale
        guard = FAR if self.noisy(rest) else GUARD
        if constant.is_infinite or (constant.is_number and abs(constant) >= guard):
            if abs(constant) < LARGEST:
                self.domain.add(rest + constant if constant > 0 else -rest - constant)
            return bool(constant > 0)
        expr = rest + constant
        if self.point is not None and not self.noisy(expr):
            return bool(sp.N(expr.xreplace(dict(self.point))) > 0)
        whole = sp.Integer(round(constant))
        if constant != whole and abs(constant - whole) < ROUNDING:
            expr = rest + whole
        sign = positive(expr)
        if sign is not None:
            return sign
        if is_zero(expr):
            return False
        expr = primitive(expr)
        for assumed, truth in self.case.items():
            if expr == assumed or is_zero(expr - assumed):
                return truth
            if expr == -assumed or is_zero(expr + assumed):
                return not truth
        return None

    def decide(self, expr: sp.Expr) -> bool:
        """Return whether an expression is positive on this path."""
        found = self.known(expr)
        if found is not None:
            return found
        noise = self.noisy(expr)
        if not noise:
            raise UndecidedError(expr)
        # Where several noises meet, one that is uniform decides, and the others move where it is cut.
        several = sorted(noise, key=lambda symbol: (not symbol.is_positive, str(symbol)))
        only = next((symbol for symbol in several if _cuts(expr, symbol)), several[0])
        found_cut, rises = cut(expr, only, self)
        return self._is_above(only, found_cut) == rises

    def _is_above(self, noise: sp.Symbol, found: Cut) -> bool:
        for bounds, truth in ((self.lower, True), (self.upper, False)):
            if any(found == bound or is_zero(found.above(bound)) for bound in bounds.get(noise, ())):
                return truth
        if any(noise in made.noise for made in self.choices):
            raise UnreadableError(f"the noise {noise} of a choice is compared with something besides")
        above = self._next(2) == 0
        (self.lower if above else self.upper).setdefault(noise, []).append(found)
        return above

    def choose(self, entries: list[sp.Expr]) -> int:
        """Return the index of the greatest entry on this path."""
        if not any(self.noisy(entry) for entry in entries):
            best = 0
            for index in range(1, len(entries)):
                best = index if self.decide(entries[index] - entries[best]) else best
            return best
        noise, logits = zip(*(_gumbel(entry, self) for entry in entries), strict=True)
        if len(set(noise)) < len(noise) or {*noise} & {*self.lower, *self.upper}:
            raise UnreadableError("a choice with noise that is used besides")
        for made in self.choices:
            if made.noise == noise and made.is_that_of(logits):
                return made.index
            if set(made.noise) & set(noise):
                raise UnreadableError("several choices that are made with one noise")
        index = self._next(len(entries))
        self.choices.append(Choice(noise, logits, index))
        return index

    def _next(self, count: int) -> int:
        place = len(self.taken)
        index = self.given[place] if place < len(self.given) else 0
        self.taken.append((index, count))
        return index


def _gumbel(entry: sp.Expr, path: Path) -> tuple[sp.Symbol, sp.Expr]:
    """Take a logit and ``-log(-log u)`` apart."""
    noise = path.noisy(entry)
    if len(noise) == 1:
        (only,) = noise
        logit = sp.expand(entry + sp.log(-sp.log(only)))
        if not logit.has(only):
            return only, logit
    raise UnreadableError("a choice whose noise is not Gumbel noise of its own for every entry")


@cache
def positive(expr: sp.Expr) -> bool | None:
    """Return True if an expression is positive for all its symbols, False if for none, where it is plain."""
    for form in (expr, sp.together(expr)):
        if form.is_positive:
            return True
        if form.is_nonpositive:
            return False
    return None


def primitive(expr: sp.Expr) -> sp.Expr:
    """Return an expression over the positive number that all of it is a multiple of."""
    content, rest = sp.expand(expr).as_content_primitive()
    return rest if content > 0 else -rest


def _parts(expr: sp.Expr, noise: sp.Symbol) -> tuple[list[sp.Expr], sp.Expr]:
    """Return the factors of what noise may act through, and the rest."""
    expr = sp.expand(expr)
    parts = (sp.log(noise), sp.log(1 - noise), noise, sp.log(-sp.log(noise)))
    factors = [expr.coeff(part, 1) for part in parts]
    return factors, sp.expand(expr - sp.Add(*(f * part for f, part in zip(factors, parts, strict=True))))


def _cuts(expr: sp.Expr, noise: sp.Symbol) -> bool:
    """Whether it is known where an expression changes sign as noise moves."""
    factors, rest = _parts(expr, noise)
    found = [factor for factor in factors if factor != 0]
    is_odds = len(found) == 2 and factors[0] != 0 and is_zero(factors[0] + factors[1])
    is_free = not rest.has(noise) and not any(factor.has(noise) for factor in found)
    return is_free and (len(found) == 1 or is_odds)


def cut(expr: sp.Expr, noise: sp.Symbol, path: Path) -> tuple[Cut, bool]:
    """Return where an expression changes sign as noise moves, and whether it rises there."""
    if not _cuts(expr, noise):
        raise UnreadableError(f"a comparison that noise moves in a way that is not known: {expr}")
    (a, b, c, d), rest = _parts(expr, noise)
    first = next(factor for factor in (a, b, c, d) if factor != 0)
    level, rises = sp.expand(-rest / first), path.decide(first)
    if a != 0 and b != 0:
        return Cut(1 / (1 + sp.exp(-level)), level, "odds"), rises
    if a != 0:
        return Cut(sp.exp(level), level, "log"), rises
    if b != 0:
        return Cut(1 - sp.exp(level), -level, "rest"), not rises
    if c != 0:
        return Cut(level, level, "itself"), rises
    assert d != 0
    return Cut(sp.exp(-sp.exp(level)), -level, "gumbel"), not rises


def every(run: Callable[[Path], T], start: Path) -> Iterator[tuple[Path, T]]:
    """Yield every way through a computation, from a path with nothing compared, and what it gives."""
    given: tuple[int, ...] = ()
    for _ in range(LIMIT):
        path = Path(start.noise, start.case, given, point=start.point)
        found = run(path)
        if math.prod(count for _, count in path.taken) > LIMIT:
            break
        yield path, found
        taken = list(path.taken)
        while taken and taken[-1][0] == taken[-1][1] - 1:
            taken.pop()
        if not taken:
            return
        given = (*(index for index, _ in taken[:-1]), taken[-1][0] + 1)
    raise UnreadableError(f"there are more than {LIMIT} ways through it")


def in_cases(
    run: Callable[[Mapping[sp.Expr, bool]], T], limit: int = 64
) -> Iterator[tuple[Mapping[sp.Expr, bool], T]]:
    """Run in every case of the parameters between which a computation distinguishes."""
    waiting: list[dict[sp.Expr, bool]] = [{}]
    while waiting:
        case = waiting.pop()
        try:
            found = run(case)
        except UndecidedError as undecided:
            if len(waiting) >= limit:
                raise UnreadableError(f"it distinguishes between more than {limit} cases") from None
            split = [{**case, undecided.expr: truth} for truth in (False, True)]
            possible = [one for one in split if not impossible(one)]
            if not possible:
                told = f"it is not known whether {undecided.expr} is positive"
                raise UnreadableError(told) from None
            waiting += possible
        else:
            yield case, found


def impossible(case: Mapping[sp.Expr, bool]) -> bool:
    """Whether no parameters are in a case, as is seen where sums of its inequalities contradict each other.

    Every product of parameters counts as a variable of its own (Fourier and Motzkin's elimination).
    """
    rows = []
    for expr, truth in case.items():
        row = sp.expand(expr if truth else -expr).as_coefficients_dict()
        rows.append({term: factor for term, factor in row.items() if factor.is_Rational})
        if len(rows[-1]) < len(row):
            return False
    while rows and len(rows) < MANY:
        if any(all(term == 1 for term in row) and row.get(sp.S.One, 0) <= 0 for row in rows):
            return True
        terms = sorted({term for row in rows for term in row if term != 1}, key=str)
        if not terms:
            return False
        rows = _without(rows, terms[0])
    return False


def _without(rows: list[dict[sp.Expr, sp.Rational]], term: sp.Expr) -> list[dict[sp.Expr, sp.Rational]]:
    """Eliminate one variable: left are the rows without it, and a sum of every two of opposite sign."""
    up, down = ([row for row in rows if sign * row.get(term, 0) > 0] for sign in (1, -1))
    left = [row for row in rows if not row.get(term, 0)]
    for one in up:
        for other in down:
            total: dict[sp.Expr, sp.Rational] = {}
            for row, factor in ((one, -other[term]), (other, one[term])):
                for name, value in row.items():
                    total[name] = total.get(name, sp.Integer(0)) + factor * value
            left.append({name: value for name, value in total.items() if value != 0})
    return left
