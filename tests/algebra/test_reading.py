"""Reading: what torch computes, in value and gradient, is what was read of it, or it is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sympy as sp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import scg
from scg.algebra.arrays import constant, flat, number, symbols
from scg.algebra.expectation import Base
from scg.algebra.paths import Path, UndecidedError, every, impossible
from scg.algebra.reading import read
from scg.algebra.tracing import traced

torch.manual_seed(0)
NET = nn.Sequential(
    nn.Linear(4, 3), nn.ReLU(), nn.LayerNorm(3), nn.GELU(), nn.Linear(3, 2), nn.SiLU()
).double()
READ: dict[str, Callable[[Tensor], Tensor]] = {
    "net": NET,
    "softplus, tanh, sigmoid": lambda x: F.softplus(x) * torch.tanh(x) + torch.sigmoid(x),
    "softmax": lambda x: F.softmax(x.reshape(2, 2), -1) + F.log_softmax(x.reshape(2, 2), 0),
    "reductions": lambda x: x.mean() * x.std() + x.prod() + x.norm() + x.logsumexp(0) + x.var(),
    "moves": lambda x: torch.stack([x.flip(0), x.roll(1)]).t().reshape(2, 4)[:, 1:].repeat(1, 2),
    "scans": lambda x: x.cumsum(0) + x.exp().cumprod(0),
    "choices": lambda x: x.abs() + F.elu(x) + x.clamp(-0.1, 0.2) + torch.maximum(x, -x) + x.sign(),
    "extremes": lambda x: x.max() + x.reshape(2, 2).min(-1).values.sum() + x.amax(0),
    "where": lambda x: torch.where(x > 0.05, x**3, x.square()),
    "products": lambda x: torch.einsum("i,j->ij", x, x) @ x + x @ x,
    "index": lambda x: x[torch.tensor([2, 0])] + x.gather(0, torch.tensor([1, 1])),
    "powers": lambda x: x**2 + 2**x + (x + 3).sqrt() + (x + 3).rsqrt() + (x + 3).log2() + x.expm1(),
    "round": lambda x: torch.sin(x) * torch.cos(2 * x) + torch.erf(x) + torch.atan(x),
    "losses": lambda x: F.binary_cross_entropy_with_logits(x, torch.ones(4).double()) + F.mse_loss(x, -x),
    "masks": lambda x: (
        x.masked_fill(torch.tensor([True, False, True, False]), 0.3) + torch.triu(torch.outer(x, x)).sum(0)
    ),
}


@pytest.mark.parametrize("name", READ)
def test_value_and_gradient_are_those_of_torch(name: str) -> None:
    fn = READ[name]
    at = torch.tensor([0.31, -0.72, 0.13, 0.54], dtype=torch.float64)
    with torch.no_grad():
        graph = traced(lambda x: (fn(x).sum(), torch.func.grad(lambda y: fn(y).sum())(x)), at, what="it")
    own = symbols("x", (4,), real=True)
    point = {symbol: sp.Float(value, 30) for symbol, value in zip(flat(own), at.tolist(), strict=True)}
    value, gradient = read(graph, [own], Path(point=point))
    leaf = at.clone().requires_grad_()
    wanted = fn(leaf).sum()
    (slopes,) = torch.autograd.grad(wanted, leaf)
    assert abs(float(value.item().xreplace(point)) - float(wanted.detach())) < 1e-9
    found = [float(entry.xreplace(point)) for entry in flat(gradient)]
    assert torch.allclose(torch.tensor(found, dtype=torch.float64), slopes, atol=1e-9), name


@pytest.mark.parametrize(
    ("fn", "told"),
    [
        (lambda x: x.round(), "round"),
        (lambda x: x + torch.rand(4), "draws"),
        (lambda x: x * 2 if x.sum() > 0 else x, "look at a value"),
        (lambda x: torch.special.zeta(x + 2, x + 2), "zeta"),
    ],
)
def test_what_cannot_be_read_is_refused(fn: Callable[[Tensor], Tensor], told: str) -> None:
    with pytest.raises(scg.UnreadableError, match=told):
        read(traced(fn, torch.ones(4).double(), what="it"), [symbols("x", (4,), real=True)], Path())


def test_numbers_are_the_simplest_that_round_to_them() -> None:
    assert number(0.1 + 0.2) == sp.Rational("0.30000000000000004")
    assert flat(constant(torch.tensor([0.45, 1 / 3]))) == [sp.Rational(9, 20), sp.Rational(1, 3)]
    assert number(float("-inf")) == -sp.oo


def test_comparisons_of_parameters_make_cases_and_of_noise_ways() -> None:
    theta, u = sp.Symbol("theta", real=True), sp.Symbol("u", positive=True)
    with pytest.raises(UndecidedError):
        Path().decide(theta - 1)
    assert Path(case={theta - 1: True}).decide(2 * theta - 2)
    assert not Path(case={theta - 1: True}).decide(3 - 3 * theta)
    ways = list(every(lambda path: path.decide(theta + sp.log(u) - sp.log(1 - u)), Path(frozenset([u]))))
    assert [truth for _, truth in ways] == [True, False]
    assert ways[0][0].lower[u][0].at == 1 / (1 + sp.exp(theta))


def test_a_guard_against_overflow_is_told() -> None:
    theta = sp.Symbol("theta", real=True)
    path = Path()
    assert path.decide(1000 - theta)
    assert path.domain == {1000 - theta}


def test_a_guard_that_noise_passes_is_followed() -> None:
    z = sp.Symbol("z", real=True)
    path = Path(frozenset([z]))
    assert path.decide(z - 100)
    assert path.lower[z][0].at == 100


def test_noise_of_a_choice_is_not_cut_besides() -> None:
    u, v = sp.symbols("u v", positive=True)
    path = Path(frozenset([u, v]))
    path.choose([-sp.log(-sp.log(u)), -sp.log(-sp.log(v))])
    with pytest.raises(scg.UnreadableError, match="of a choice"):
        path.decide(u - sp.Rational(1, 2))


def test_a_mean_that_may_be_infinite_is_refused() -> None:
    x, a = sp.symbols("x a", positive=True)
    assert Base(x, "exponential").mean(sp.exp(-a * x) * x) == 1 / (1 + a) ** 2
    with pytest.raises(scg.UnreadableError, match="infinite"):
        Base(x, "exponential").mean(sp.exp(a * x))


def test_cases_that_contradict_each_other_are_left_out() -> None:
    a, b = sp.symbols("a b", real=True)
    assert impossible({a: True, -a - 1: True})
    assert impossible({a - b: True, b - 2: True, 1 - a: True})
    assert not impossible({a - b: True, b - 2: True, a - 1: True})
