"""Zero: identities are known, and what is not 0 is not called 0."""

from __future__ import annotations

import pytest
import sympy as sp

from scg.algebra.zero import is_zero, tidy

x, y = sp.symbols("x y", real=True)
t = sp.Symbol("t", real=True)
u = sp.Symbol("u", positive=True)


def s(z: sp.Expr) -> sp.Expr:
    return 1 / (1 + sp.exp(-z))


@pytest.mark.parametrize(
    "zero",
    [
        s(x) * (1 - s(x)) - sp.diff(s(x), x),
        sp.tanh(x) - (2 * s(2 * x) - 1),
        sp.sin(x + y) - sp.sin(x) * sp.cos(y) - sp.cos(x) * sp.sin(y),
        sp.log(1 + sp.exp(x)) - x - sp.log(1 + sp.exp(-x)),
        sp.sqrt(1 + x**2) ** 2 - 1 - x**2,
        sp.exp((x + sp.log(u) - sp.log(1 - u)) * t) - sp.exp(x * t) * u**t / (1 - u) ** t,
        sp.exp(x + sp.Rational(1, 5)) - sp.exp(x) * sp.exp(sp.Rational(1, 5)),
        sp.log(sp.Integer(6)) - sp.log(sp.Integer(2)) - sp.log(sp.Integer(3)),
        sp.exp(sp.I * x) - sp.cos(x) - sp.I * sp.sin(x),
        sp.erf(x * (1 + y)) - sp.erf(x + x * y),
        sp.exp(x / 2) ** 2 - sp.exp(x / 3) ** 3,
    ],
)
def test_an_identity_is_known(zero: sp.Expr) -> None:
    assert is_zero(zero)
    assert not is_zero(zero + sp.Rational(1, 10**12))


@pytest.mark.parametrize("other", [s(x) - s(2 * x), sp.exp(x) - 1, x, sp.Abs(x) - x, sp.Max(x, 0) - x])
def test_what_is_not_0_everywhere_is_not_0(other: sp.Expr) -> None:
    assert not is_zero(other)


def test_a_number_that_cancels_is_left_out() -> None:
    m = sp.Max(0, -x)
    assert tidy(sp.exp(-m) / (sp.exp(-m) + sp.exp(-x - m))) == 1 / (1 + sp.exp(-x))
    assert tidy(m) == m
