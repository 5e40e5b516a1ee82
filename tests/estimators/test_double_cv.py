"""Double control variates, integrated over all replicates: exact at any coefficient, slope and law."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, OneHotCategorical

import scg
from scg.errors import EstimatorError
from scg.estimators import double_cv
from scg.estimators.parts.linear import Linear
from tests.contract.judge import gap
from tests.estimators.building import of
from tests.support.integrate import integrated_gradient
from tests.support.running import gradients


def bits(given: str = "logits") -> scg.Graph:
    """Two bits, and a cost that is no sum of costs of each, with a parameter of its own."""
    g = scg.Graph()
    start = of(0.4, -0.9) if given == "logits" else of(0.6, 0.3)
    b = g.sample("b", Bernoulli, **{given: g.param("theta", start)})
    g.cost("c", lambda b, w: (b * of(1.0, -0.7)).sum(-1) ** 3 + w * b.prod(-1), b, g.param("w", of(0.8)[0]))
    return g


def choice(dist: Any, given: str) -> scg.Graph:
    g = scg.Graph()
    start = of(0.4, -0.9, 0.2) if given == "logits" else of(0.5, 0.2, 0.3)
    b = g.sample("b", dist, **{given: g.param("theta", start)})
    table = of(0.4, -1.3, 2.2)
    if dist is OneHotCategorical:
        g.cost("c", lambda b: (b * table).sum(-1) ** 3, b)
    else:
        priced = g.det("h", lambda k: table[k], b, relaxed=lambda p: p @ table)
        g.cost("c", lambda h: h**3, priced)
    return g


GRAPHS = {
    "logits": bits,
    "probs": lambda: bits("probs"),
    **{
        f"{dist.__name__}-{given}": lambda dist=dist, given=given: choice(dist, given)
        for dist in (Categorical, OneHotCategorical)
        for given in ("logits", "probs")
    },
}


def moved(program: scg.Program) -> scg.Program:
    """Have a learned slope tell something."""
    with torch.no_grad():
        for module in program.controls.modules():
            if isinstance(module, Linear) and module.slope is not None:
                module.slope.copy_(torch.linspace(-1.0, 2.0, module.slope.numel()).view_as(module.slope))
    return program


@pytest.mark.parametrize("estimator", [scg.DoubleCV(coefficient=0.7), scg.DoubleCV(slope="learned")], ids=str)
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("samples", [2, 3])
def test_its_mean_is_the_gradient(samples: int, name: str, estimator: scg.Estimator) -> None:
    g = GRAPHS[name]()
    program = moved(scg.compile(g, estimator, samples=samples))
    found = integrated_gradient(g, program, samples=samples, exchangeable=True)
    assert gap(found, scg.exact_gradient(g)) < 1e-12


def test_slopes_at_the_own_sample_are_biased(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_own(values: Tensor, dim: int) -> Tensor:
        return values.mean(dim, keepdim=True).expand(values.shape)

    monkeypatch.setattr(double_cv, "left_out", with_own)
    g = bits()
    found = integrated_gradient(g, scg.compile(g, "double-cv", samples=2), samples=2, exchangeable=True)
    assert gap(found, scg.exact_gradient(g)) > 0.05


def test_a_linear_cost_leaves_no_variance() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", of(0.4, -0.9)))
    g.cost("c", lambda b: (b * of(1.0, -0.7)).sum(-1), b)
    program = scg.compile(g, "double-cv", samples=3)
    for seed in range(4):
        assert gap({"theta": gradients(program, seed=seed)["theta"]}, scg.exact_gradient(g)) < 1e-12


def test_the_slope_is_learned_where_there_is_none() -> None:
    """On a table, which has no slope, the estimate of a learned vector has less and less variance."""
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", of(0.4, -0.9)))
    g.cost("c", lambda b: torch.round(b * of(3.0, -2.0)).sum(-1), b)
    program = scg.compile(g, "double-cv", samples=2)
    assert isinstance(program.controls["b"], Linear)
    optimizer = torch.optim.Adam(program.control_parameters(), lr=0.05)
    for seed in range(400):
        optimizer.zero_grad()
        program(seed=seed).loss.backward()
        optimizer.step()
    assert torch.allclose(program.controls["b"].slope, of(3.0, -2.0), atol=0.1)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: scg.DoubleCV(slope="own"), "slope is one of"),  # type: ignore[arg-type]
        (lambda: scg.DoubleCV(coefficient="1"), "coefficient is a number"),  # type: ignore[arg-type]
        (lambda: scg.compile(bits(), "double-cv"), "compile with samples=2 or more"),
        (lambda: scg.compile(rough(), scg.DoubleCV(slope="cost"), samples=2), 'give slope="learned"'),
    ],
)
def test_what_it_cannot_do_is_refused(make: Any, told: str) -> None:
    with pytest.raises(EstimatorError, match=told):
        make()


def rough() -> scg.Graph:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", of(0.4)))
    g.cost("c", lambda b: torch.sign(b - 0.5).sum(-1), b)
    return g
