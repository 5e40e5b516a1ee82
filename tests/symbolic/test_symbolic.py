"""Symbolic: objective, gradient and variance in closed form, against exact ones and runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
import sympy as sp
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Exponential, Gamma, LogNormal, Poisson, Uniform

import scg
from scg.algebra.twins import TWINS
from scg.examples import SCHULMAN
from scg.proving.emitted import emitted, reading
from scg.proving.quadrature import Integrand, regions
from scg.verification.draws import controls_still
from tests.proving import graphs
from tests.selection import EVERYTHING


def point(g: scg.Graph) -> dict[sp.Symbol, float]:
    found = {}
    for name, parameter in g.named_parameters():
        for index in numpy.ndindex(*parameter.shape):
            found[sp.Symbol("_".join([name, *map(str, index)]))] = float(parameter.detach()[index])
    return found


@pytest.mark.parametrize(
    "make",
    [*SCHULMAN, graphs.chain, graphs.diamond, graphs.choice, graphs.batch, graphs.mixed, graphs.probable],
)
def test_objective_and_gradient_are_exact(make: Callable[[], scg.Graph]) -> None:
    g = make()
    at = point(g)
    objective = scg.symbolic.objective(g)
    assert abs(float(objective.subs(at)) - float(scg.exact_objective(g).detach())) < 1e-6
    gradient = scg.symbolic.gradient(g)
    for name, exact in scg.exact_gradient(g).items():
        entries = gradient[name] if exact.dim() else sp.Array([gradient[name]])
        found = torch.tensor([float(e.subs(at)) for e in sp.flatten(entries)])
        assert torch.allclose(found, exact.reshape(-1).float(), atol=1e-5), name


def test_continuous_laws_and_counts_have_closed_forms() -> None:
    g = scg.Graph()
    w = g.param("w", graphs.number(0.4))
    k, e = g.sample("k", Poisson, torch.exp(w)), g.sample("e", Exponential, torch.exp(-w))
    u, n = g.sample("u", Uniform, 0.0, torch.exp(w)), g.sample("n", LogNormal, w, 0.5)
    g.cost("c", k**2 + e**2 + u * torch.exp(-u) + torch.exp(-k) + n)
    found = float(scg.symbolic.objective(g).subs("w", 0.4))
    r = numpy.exp(0.4)
    counts = r**2 + r + numpy.exp(r * (numpy.exp(-1) - 1))
    middle = (1 - (1 + r) * numpy.exp(-r)) / r
    assert abs(found - (counts + 2 * r**2 + middle + numpy.exp(0.4 + 0.125))) < 1e-9


def test_pieces_have_their_conditions() -> None:
    g = scg.Graph()
    t = g.param("t", graphs.number(0.3))
    b = g.sample("b", Bernoulli, logits=t)
    g.cost("c", g.det("f", lambda t, b: torch.where(t > 1, (t - 1) * b, 0.0 * b), t, b, differentiable=True))
    found = scg.symbolic.objective(g)
    assert found.subs("t", 0) == 0
    assert abs(float(found.subs("t", 2)) - 1 / (1 + numpy.exp(-2))) < 1e-9


@pytest.mark.parametrize(
    ("make", "policy", "integrals"),
    [
        (graphs.toy, "score", 0),
        (graphs.chain, "score", 0),
        (graphs.toy, scg.REBAR(temperature=0.5), 1),
        *([(graphs.toy, scg.REBAR(temperature=0.7, tune=False), 1)] if EVERYTHING else []),
        (SCHULMAN[1], "score", 0),
    ],
)
def test_the_variance_is_that_of_the_emitted_program(make: Any, policy: Any, integrals: int) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        g = make()
        program = scg.compile(g, policy)
        found = scg.symbolic.variance(program)
        for name, wanted in squared(program).items():
            expr = found[name]
            assert max((len(i.limits) for i in expr.atoms(sp.Integral)), default=0) == integrals
            assert abs(float(expr.subs(point(g)).evalf()) - wanted) < 1e-8 * max(wanted, 1), (name, wanted)
    finally:
        torch.set_default_dtype(torch.float32)


def squared(program: scg.Program) -> dict[str, float]:
    """Integrate the variance of the emitted program over its noise."""
    with controls_still(program), torch.enable_grad():
        what = emitted(program, {})
        read = reading(what)
        first, second = 0.0, 0.0
        for region in regions(read, what.live, what.state):
            one = Integrand(what, read, region, what.live, what.state)
            group = [s for s in region.order if s in _used(read)]
            first = first + one.integral([group or [region.order[0]]], coarse=False)
            second = second + Squares(what, read, region, what.live, what.state).integral(
                [group or [region.order[0]]], coarse=False
            )
    spread = second - first**2  # type: ignore[operator]
    return dict(zip(what.live, spread.tolist(), strict=True))


class Squares(Integrand):
    """The square of a gradient, times the density of its noise."""

    def __call__(self, unit: dict[sp.Symbol, Tensor]) -> Tensor:
        noise, density = self.region.noise(unit)
        del noise
        return super().__call__(unit) ** 2 / density[:, None]


def _used(read: Any) -> set[sp.Symbol]:
    return set(read.kinds)


def test_latex_of_a_program_names_its_estimators() -> None:
    text = scg.symbolic.latex(scg.compile(graphs.chain(), {"b1": "enumerate", "b2": "rebar"}))
    assert text.startswith(r"\begin{align*}")
    assert r"b_{1} &\sim \mathrm{Bernoulli}\left(\sigma(\theta)\right)" in text
    assert r"\hat g_{b_{2}}" in text
    assert text.count("{") == text.count("}")


def numpy_cost(b: Tensor) -> Tensor:
    return torch.as_tensor(numpy.square(b.numpy() - 0.3))


def test_a_twin_is_read_and_held_against_its_function() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", graphs.number(0.4)))
    g.cost("c", g.det("f", numpy_cost, b, differentiable=False))
    with pytest.raises(scg.UnreadableError, match="cost 'c'.*register"):
        scg.symbolic.objective(g)
    try:
        scg.symbolic.register(numpy_cost, lambda b: (b - 0.31) ** 2)
        with pytest.raises(scg.UnreadableError, match="was read as"):
            scg.symbolic.objective(g)

        @scg.symbolic.register(numpy_cost)
        def twin(b: Tensor) -> Tensor:
            return (b - 0.3) ** 2

        found = scg.symbolic.objective(g)
    finally:
        TWINS.clear()
    assert abs(float(found.subs("theta", 0)) - (0.09 + 0.49) / 2) < 1e-9


def test_what_has_no_closed_form_is_refused_by_name() -> None:
    g = scg.Graph()
    z = g.sample("z", Gamma, torch.exp(g.param("theta", graphs.number(0.4))), 1.0)
    g.cost("c", z**2)
    with pytest.raises(scg.UnreadableError, match=r"sample 'z' .* is Gamma"):
        scg.symbolic.objective(g)
    with pytest.raises(scg.UnreadableError, match="not known in closed form"):
        scg.symbolic.objective(graphs.downstream())
    with pytest.raises(scg.GraphError, match=r"takes a scg\.Graph"):
        scg.symbolic.objective(scg.compile(graphs.toy()))  # type: ignore[arg-type]
