"""Expectations in closed form, of polynomials times exponentials, sines and cosines of what is random."""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

from scg.errors import UnreadableError

TURN = sp.Symbol("s")


@dataclass(frozen=True)
class Base:
    """A random ``symbol``: "normal" or "exponential" of scale 1, "uniform" on (0, 1), or "poisson"."""

    symbol: sp.Symbol
    kind: str
    rate: sp.Expr = sp.S.One

    def moment(self, power: int, tilt: sp.Expr) -> sp.Expr:
        """Return the mean of ``x ** power * exp(tilt * x)``."""
        if self.kind == "exponential" and not (1 - tilt).is_positive:
            raise UnreadableError(f"the mean of exp({tilt} * {self.symbol}) is infinite, or may be")
        if self.kind == "uniform" and tilt == 0:
            return sp.Rational(1, power + 1)
        return sp.diff(self._generating(TURN), TURN, power).subs(TURN, tilt)

    def _generating(self, tilt: sp.Expr) -> sp.Expr:
        if self.kind == "normal":
            return sp.exp(tilt**2 / 2)
        if self.kind == "exponential":
            return 1 / (1 - tilt)
        if self.kind == "uniform":
            return (sp.exp(tilt) - 1) / tilt
        return sp.exp(self.rate * (sp.exp(tilt) - 1))

    def mean(self, expr: sp.Expr) -> sp.Expr:
        """Return the mean of an expression, or refuse one that has none in closed form."""
        if not expr.has(self.symbol):
            return expr
        if expr.has(sp.sin, sp.cos, sp.tan, sp.sinh, sp.cosh):
            expr = expr.rewrite(sp.exp)
        total: sp.Expr = sp.Integer(0)
        for term in sp.Add.make_args(sp.expand(expr, power_exp=True)):
            total += self._term(term)
        return total

    def _term(self, term: sp.Expr) -> sp.Expr:
        factor, rest = term.as_independent(self.symbol, as_Add=False)
        power, exponent = sp.Integer(0), sp.Integer(0)
        for part in sp.Mul.make_args(rest):
            base, raised = part.as_base_exp()
            if part == 1:
                continue
            if base == self.symbol and raised.is_Integer and raised > 0:
                power += raised
            elif isinstance(part, sp.exp):
                exponent += part.args[0]
            elif not base.has(self.symbol):
                exponent += raised * sp.log(base)
            else:
                raise UnreadableError(
                    f"the mean of {part} over {self.kind} {self.symbol} is not known in closed form"
                )
        exponent = sp.expand(exponent)
        tilt = exponent.coeff(self.symbol, 1)
        constant = sp.expand(exponent - tilt * self.symbol)
        if constant.has(self.symbol):
            raise UnreadableError(
                f"the mean of exp({exponent}) over {self.kind} {self.symbol} is not known in closed form"
            )
        return factor * sp.exp(constant) * self.moment(int(power), tilt)


def mean(expr: sp.Expr, bases: tuple[Base, ...]) -> sp.Expr:
    """Return the mean of an expression over several, from the last to the first."""
    for base in reversed(bases):
        expr = base.mean(expr)
    return expr.expand(complex=True).as_real_imag()[0] if expr.has(sp.I) else expr
