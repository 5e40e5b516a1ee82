"""What operations on single entries are in sympy, by the name that torch gives them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import sympy as sp

from scg.algebra.paths import Path
from scg.algebra.zero import is_zero
from scg.errors import UnreadableError

Entry: TypeAlias = sp.Expr


class Condition(ABC):
    """A truth value that need not be known: it is asked for on a path where something depends on it."""

    @abstractmethod
    def known(self, path: Path) -> bool | None:
        """Return it where that makes no case."""

    @abstractmethod
    def holds(self, path: Path) -> bool:
        """Return it on a path."""


class Positive(Condition):
    """Whether an expression is positive, which 0 is not."""

    def __init__(self, expr: Entry) -> None:
        """Keep what is compared with 0."""
        self.expr = expr

    def known(self, path: Path) -> bool | None:
        """Return what is known of the sign."""
        return path.known(self.expr)

    def holds(self, path: Path) -> bool:
        """Return the sign on a path."""
        return path.decide(self.expr)


class Known(Condition):
    """A truth value that is known."""

    def __init__(self, value: bool) -> None:
        """Keep it."""
        self.value = value

    def known(self, path: Path) -> bool | None:
        """Return it."""
        return self.value

    def holds(self, path: Path) -> bool:
        """Return it."""
        return self.value


class Joined(Condition):
    """Several conditions joined by "and", "or", "not" or "xor"."""

    def __init__(self, fn: Callable[..., bool], *parts: Condition) -> None:
        """Keep them, and the function that joins them."""
        self.fn, self.parts = fn, parts

    def known(self, path: Path) -> bool | None:
        """Return it where all are known."""
        found = [part.known(path) for part in self.parts]
        return None if None in found else self.fn(*found)

    def holds(self, path: Path) -> bool:
        """Return it on a path."""
        return self.fn(*(part.holds(path) for part in self.parts))


def condition(value: Condition | Entry) -> Condition:
    """Return a truth value as a condition."""
    if isinstance(value, Condition):
        return value
    if value.is_number:
        return Known(value != 0)
    raise UnreadableError("a number that is asked whether it is 0")


def entry(value: Condition | Entry, path: Path) -> Entry:
    """Return a truth value as a number."""
    return sp.Integer(int(value.holds(path))) if isinstance(value, Condition) else value


def chosen(test: Condition | Entry, yes: Entry, no: Entry, path: Path) -> Entry:
    """Return ``where(test, yes, no)``; where both are the same the test is not asked."""
    test = condition(test)
    found = test.known(path)
    if found is None and _is_same(yes, no):
        return yes
    return yes if (test.holds(path) if found is None else found) else no


def _is_same(a: Condition | Entry, b: Condition | Entry) -> bool:
    if isinstance(a, Condition) or isinstance(b, Condition):
        return a is b
    return bool(a == b or (a.is_finite is not False and b.is_finite is not False and is_zero(a - b)))


def greater(a: Entry, b: Entry) -> Condition:
    """Return ``a > b``."""
    if a.is_infinite or b.is_infinite:
        return Known(bool(a.is_extended_positive if a.is_infinite else b.is_extended_negative))
    gap = a - b
    return Known(bool(gap > 0)) if gap.is_number else Positive(gap)


def greater_or_equal(a: Entry, b: Entry) -> Condition:
    """Return ``a >= b``."""
    return Joined(lambda below: not below, greater(b, a))


def equal(a: Entry, b: Entry) -> Condition:
    """Return ``a == b``, which for what is continuous does not happen."""
    if isinstance(a, Condition) or isinstance(b, Condition):
        return Joined(lambda x, y: x == y, condition(a), condition(b))
    if a == b:
        return Known(True)
    gap = a - b
    if gap.has(sp.Max, sp.Abs) or any(symbol.is_integer for symbol in gap.free_symbols):
        raise UnreadableError("an equality that may well hold at some values and not at others")
    return Known(not gap.is_number and is_zero(gap))


def larger(a: Entry, b: Entry, path: Path) -> Entry:
    """Return the larger of two, which stays as it is where nothing tells."""
    if a == b:
        return a
    if a.is_infinite or b.is_infinite:
        return a if greater(a, b).holds(path) else b
    gap = a - b
    found = path.known(gap)
    if found is None and path.noisy(gap):
        found = path.decide(gap)
    return sp.Max(a, b) if found is None else a if found else b


def smaller(a: Entry, b: Entry, path: Path) -> Entry:
    """Return the smaller of two."""
    return -larger(-a, -b, path)


def absolute(a: Entry, path: Path) -> Entry:
    """Return the size of a number, which stays as it is where nothing tells its sign."""
    if a.is_nonnegative:
        return a
    found = path.known(a)
    return sp.Abs(a) if found is None else a if found else -a


def sign(a: Entry, path: Path) -> Entry:
    """Return the sign of a number."""
    if a.is_number:
        return sp.sign(a)
    return sp.Integer(1 if path.decide(a) else -1)


def times(a: Entry, b: Entry) -> Entry:
    """Return a product, in which 0 takes all: what is infinite is not known to be."""
    return sp.Integer(0) if a == 0 or b == 0 else a * b


def sigmoid(a: Entry) -> Entry:
    """Return ``1 / (1 + exp(-a))``."""
    return 1 / (1 + sp.exp(-a))


def softplus(a: Entry) -> Entry:
    """Return ``log(1 + exp(a))``."""
    return sp.log(1 + sp.exp(a))


def power(a: Entry, b: Entry) -> Entry:
    """Return ``a ** b``, where any number to the power of 0 is 1."""
    return sp.Integer(1) if b == 0 else a**b


def gelu(a: Entry) -> Entry:
    """Return ``a`` times the distribution function of the normal law."""
    return a * (1 + sp.erf(a / sp.sqrt(2))) / 2


ONE: dict[str, Callable[[Entry], Entry]] = {
    "neg": lambda a: -a,
    "exp": sp.exp,
    "log": sp.log,
    "log1p": lambda a: sp.log(1 + a),
    "expm1": lambda a: sp.exp(a) - 1,
    "log2": lambda a: sp.log(a) / sp.log(2),
    "log10": lambda a: sp.log(a) / sp.log(10),
    "exp2": lambda a: sp.exp(a * sp.log(2)),
    "sqrt": sp.sqrt,
    "rsqrt": lambda a: 1 / sp.sqrt(a),
    "reciprocal": lambda a: 1 / a,
    "square": lambda a: a**2,
    "sin": sp.sin,
    "cos": sp.cos,
    "tan": lambda a: sp.sin(a) / sp.cos(a),
    "atan": sp.atan,
    "tanh": sp.tanh,
    "sinh": sp.sinh,
    "cosh": sp.cosh,
    "sigmoid": sigmoid,
    "silu": lambda a: a * sigmoid(a),
    "erf": sp.erf,
    "erfc": lambda a: 1 - sp.erf(a),
    "lgamma": sp.loggamma,
    "digamma": sp.digamma,
    "gelu": gelu,
}
TWO: dict[str, Callable[[Entry, Entry], object]] = {
    "mul": times,
    "div": lambda a, b: sp.Integer(0) if a == 0 else a / b,
    "pow": power,
    "gt": greater,
    "lt": lambda a, b: greater(b, a),
    "ge": greater_or_equal,
    "le": lambda a, b: greater_or_equal(b, a),
    "eq": equal,
    "ne": lambda a, b: Joined(lambda x: not x, equal(a, b)),
}
JOINED: dict[str, Callable[..., bool]] = {
    "logical_and": lambda a, b: a and b,
    "bitwise_and": lambda a, b: a and b,
    "logical_or": lambda a, b: a or b,
    "bitwise_or": lambda a, b: a or b,
    "logical_xor": lambda a, b: a != b,
    "bitwise_xor": lambda a, b: a != b,
    "logical_not": lambda a: not a,
    "bitwise_not": lambda a: not a,
}
ON_A_PATH: dict[str, Callable[..., Entry]] = {
    "where": chosen,
    "maximum": larger,
    "minimum": smaller,
    "abs": absolute,
    "sign": sign,
    "sgn": sign,
    "relu": lambda a, path: larger(a, sp.Integer(0), path),
}
