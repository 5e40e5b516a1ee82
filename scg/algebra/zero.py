"""Whether an expression is 0: it is written as a quotient of polynomials in what is independent in it."""

from __future__ import annotations

from collections.abc import Callable
from math import lcm

import mpmath  # type: ignore[import-untyped]
import sympy as sp

POINTS = ((11, 7), (13, 5), (17, 3))
"""Seeds of the points at which a difference has to vanish before its algebra is asked."""
DIGITS = 40
LARGE = 150
"""Operations from which on a function is made of an expression, to know its value."""
CLOSE = 1e-25


def is_zero(expr: sp.Expr) -> bool:
    """Whether an expression is 0 for all values of its symbols, as far as algebra tells.

    What is told to be 0 is: symbols and functions that are left count as independent of each other. The other
    way round, a relation between functions that is not known here may be missed.

    >>> x = sp.Symbol("x", real=True)
    >>> is_zero(1 / (1 + sp.exp(-x)) + 1 / (1 + sp.exp(x)) - 1), is_zero(sp.exp(x) - 1)
    (True, False)
    """
    if expr == 0:
        return True
    if expr.has(sp.oo, sp.zoo, sp.nan):
        return False
    if expr.is_number and expr.is_Rational:
        return False
    return not differs(expr) and Quotient().is_zero(expr)


def differs(expr: sp.Expr) -> bool:
    """Whether an expression is seen not to be 0 at some points."""
    return any(_is_large(expr, point) for point in points(expr))


def points(expr: sp.Expr) -> list[dict[sp.Symbol, sp.Expr]]:
    """Return values of the symbols of an expression at which it is looked at."""
    names = sorted(expr.free_symbols, key=str)
    found = []
    for step, start in POINTS:
        spread = [sp.Rational((start + step * (place + 1) * 29) % 97 + 1, 89) for place in range(len(names))]
        signs = [1 if s.is_positive or (place + start) % 3 else -1 for place, s in enumerate(names)]
        found.append({s: sign * value for s, sign, value in zip(names, signs, spread, strict=True)})
    return found


def _is_large(expr: sp.Expr, point: dict[sp.Symbol, sp.Expr]) -> bool:
    try:
        value = _number(expr, point)
        return bool(value.is_number) and value.is_finite is not False and bool(abs(value) > CLOSE)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return False


def tidy(expr: sp.Expr) -> sp.Expr:
    """Return an expression without a greater of two that only keeps numbers small: what it is cancels."""
    for greater in sorted(expr.atoms(sp.Max), key=str):
        plain = expr.xreplace({greater: greater.args[0]})
        expr = plain if is_zero(expr - plain) else expr
    return expr


def _number(expr: sp.Expr, point: dict[sp.Symbol, sp.Expr]) -> sp.Expr:
    """Return the value of an expression at a point, of a large one by a function that is made of it."""
    if expr.count_ops() < LARGE:
        return sp.N(expr.xreplace(point), DIGITS)
    with mpmath.workdps(DIGITS):
        names = list(point)
        values = [mpmath.mpf(point[name].p) / point[name].q for name in names]
        return sp.sympify(sp.lambdify(names, expr, "mpmath", cse=True)(*values))


class Quotient:
    """Expressions as quotients of polynomials in symbols that stand for what is independent in them.

    ``exp`` of a sum is a product, of a logarithm what that is of; ``log`` of a product is a sum; sine and
    cosine are rational in the tangent of half their argument.
    """

    def __init__(self) -> None:
        """Start with nothing that symbols stand for."""
        self._stands: dict[sp.Expr, sp.Symbol] = {}
        self._roots: dict[sp.Symbol, tuple[int, sp.Expr]] = {}
        self._logs: dict[sp.Symbol, sp.Expr] = {}
        self._memo: dict[sp.Expr, sp.Expr] = {}
        self._shares: dict[sp.Expr, int] = {}

    def is_zero(self, expr: sp.Expr) -> bool:
        """Whether the numerator of an expression vanishes."""
        expr = _plain(expr)
        self._share(expr)
        numerator = sp.fraction(sp.together(self.written(expr)))[0]
        return bool(self._reduced(sp.expand(numerator)) == 0)

    def _reduced(self, numerator: sp.Expr) -> sp.Expr:
        """Replace powers of roots by what they are."""
        for root, (degree, base) in reversed(list(self._roots.items())):
            if not numerator.has(root):
                continue
            poly, total = sp.Poly(numerator, root), sp.Integer(0)
            for (power,), coefficient in poly.terms():
                total += coefficient * base ** (power // degree) * root ** (power % degree)
            numerator = sp.expand(sp.fraction(sp.together(total))[0])
        return numerator

    def _share(self, expr: sp.Expr) -> None:
        """Find the denominators with which what is in exponents is there."""
        for power in expr.atoms(sp.exp):
            for term in sp.Add.make_args(sp.expand(power.args[0]).coeff(sp.I, 0)):
                factor, rest = term.as_coeff_Mul()
                if factor.is_Rational:
                    self._shares[rest] = lcm(self._shares.get(rest, 1), int(factor.q))

    def written(self, expr: sp.Expr) -> sp.Expr:
        """Return an expression with symbols for what is independent in it."""
        if expr not in self._memo:
            self._memo[expr] = self._write(expr)
        return self._memo[expr]

    def _write(self, expr: sp.Expr) -> sp.Expr:
        if expr.is_Symbol or expr.is_Rational or expr is sp.I:
            return expr
        if isinstance(expr, (sp.Add, sp.Mul)):
            return expr.func(*[self.written(part) for part in expr.args])
        if isinstance(expr, sp.exp):
            return self._exp(expr.args[0])
        if isinstance(expr, sp.Pow):
            return self._pow(*expr.as_base_exp())
        if isinstance(expr, sp.log):
            return self._log(expr.args[0])
        if isinstance(expr, (sp.sin, sp.cos)):
            return self._circular(expr.func, expr.args[0])
        if expr.is_Float:
            return sp.Rational(str(expr))
        return self._stand(expr.func(*[self._settled(part) for part in expr.args]))

    def _stand(self, expr: sp.Expr, positive: bool = False) -> sp.Symbol:
        if expr not in self._stands:
            self._stands[expr] = sp.Dummy(f"k{len(self._stands)}", positive=positive or None, real=True)
        return self._stands[expr]

    def _settled(self, expr: sp.Expr) -> sp.Expr:
        """Return an expression in one form, to be recognised by."""
        return sp.factor(sp.cancel(sp.together(self.written(expr))))

    def _exp(self, exponent: sp.Expr) -> sp.Expr:
        product: sp.Expr = sp.Integer(1)
        exponent = sp.expand(exponent)
        if turn := exponent.coeff(sp.I, 1):
            product = self._circular(sp.cos, turn) + sp.I * self._circular(sp.sin, turn)
        for term in sp.Add.make_args(exponent.coeff(sp.I, 0)):
            logs = [factor for factor in sp.Mul.make_args(term) if isinstance(factor, sp.log)]
            rest = term / logs[0] if logs else term
            if logs and rest.is_Rational:
                product *= self._pow(logs[0].args[0], rest)
                continue
            factor, rest = term.as_coeff_Mul()
            share = self._shares.setdefault(rest, int(factor.q))
            if share % factor.q:
                share = self._shares[rest] = lcm(share, int(factor.q))
            base = self._stand(sp.exp(rest / share), positive=True)
            self._logs[base] = rest / share
            product *= base ** int(factor * share)
        return product

    def _pow(self, base: sp.Expr, exponent: sp.Expr) -> sp.Expr:
        if exponent.is_Integer:
            return self.written(base) ** exponent
        if not exponent.is_Rational:
            return self._exp(exponent * sp.log(base))
        settled = self._settled(base)
        root = self._stand(settled ** sp.Rational(1, exponent.q), positive=True)
        self._roots.setdefault(root, (int(exponent.q), settled))
        return root**exponent.p

    def _log(self, argument: sp.Expr) -> sp.Expr:
        total: sp.Expr = sp.Integer(0)
        for part in sp.Mul.make_args(self._settled(argument)):
            base, power = part.as_base_exp()
            if base in self._logs:
                total += power * self.written(self._logs[base])
            elif base.is_Rational and base > 0:
                for prime, times in {
                    **sp.factorint(base.p),
                    **{q: -k for q, k in sp.factorint(base.q).items()},
                }.items():
                    total += 0 if prime == 1 else power * times * self._stand(sp.log(prime))
            else:
                total += power * self._stand(sp.log(base))
        return total

    def _circular(self, kind: Callable[[sp.Expr], sp.Expr], argument: sp.Expr) -> sp.Expr:
        expanded = sp.expand_trig(kind(sp.expand(argument)))
        if not isinstance(expanded, (sp.sin, sp.cos)):
            return self.written(expanded)
        half = self._stand(sp.tan(self._settled(expanded.args[0]) / 2))
        over = 1 + half**2
        return 2 * half / over if isinstance(expanded, sp.sin) else (1 - half**2) / over


def _plain(expr: sp.Expr) -> sp.Expr:
    """Write hyperbolic functions by exponentials."""
    if expr.has(sp.tanh, sp.sinh, sp.cosh):
        return expr.rewrite(sp.exp)
    return expr
