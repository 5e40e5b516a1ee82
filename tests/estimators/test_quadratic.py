"""The quadratic, integrated by quadrature: exact at any control variate, of no variance at the right one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Gamma, Normal

import scg
from scg.errors import EstimatorError
from scg.estimators.quadratic import Surface
from tests.contract.instances import stirred
from tests.contract.judge import gap
from tests.estimators.building import of
from tests.support.integrate import integrated_gradient
from tests.support.running import gradients

BENT = of(1.3, -0.4, -0.4, 0.7).view(2, 2)


def pair() -> scg.Graph:
    """Two entries, in a polynomial of the fourth degree with a parameter of its own."""
    g = scg.Graph()
    scale = g.det("scale", torch.exp, g.param("log", of(-0.3, 0.4)))
    z = g.sample("z", Normal, loc=g.param("theta", of(0.4, -0.9)), scale=scale)
    g.cost("c", lambda z, w: (z * of(1.0, -0.7)).sum(-1) ** 4 + w * z.prod(-1), z, g.param("w", of(0.8)[0]))
    return g


def chain() -> scg.Graph:
    """A number above another, with a cost of both and an amortised scale."""
    g = scg.Graph()
    x = g.sample("x", Normal, loc=g.param("a", of(0.4)[0]), scale=g.param("s", of(0.8)[0]))
    y = g.sample(
        "y", Normal, loc=g.det("m", lambda x: 0.5 * x**2, x), scale=g.det("t", lambda x: 1 + x * x, x)
    )
    g.cost("c", lambda x, y: (x - y) ** 2 + x**3, x, y)
    return g


def plated(**plate: Any) -> scg.Graph:
    """Two elements below a bit, joined by a cost."""
    g = scg.Graph()
    n = g.plate("n", size=2, **plate)
    above = g.sample("b", Bernoulli, logits=g.param("top", of(0.2)[0]))
    start = g.param("theta", of(0.3, -0.6), plates=n)
    loc = g.det("l", lambda t, b: t + 0.8 * b, start, above)
    z = g.sample("z", Normal, loc=loc, scale=g.param("scale", of(0.7)[0]))
    g.cost("c", lambda z, b: (z - 0.3 + b) ** 3, z, above)
    g.cost("d", lambda z: (z.sum(-1) - 1.2) ** 2, z, plates=())
    return g


GRAPHS = {
    "pair": pair,
    "chain": chain,
    "mean": lambda: plated(reduce="mean"),
    "ordered": lambda: plated(ordered=True, reduce="sum", discount=0.5),
}
POLICIES: dict[str, dict[str, Any]] = {
    "pair": {"z": "diagonal"},
    "chain": {"x": "diagonal", "y": "full"},
    "mean": {"z": "diagonal"},
    "ordered": {"z": "full"},
}


def own(program: scg.Program, seed: int) -> dict[str, Tensor]:
    """Return what one backward leaves in the parameters of the graph."""
    found = gradients(program, seed=seed)
    return {name: grad for name, grad in found.items() if not name.startswith("controls.")}


@pytest.mark.parametrize("name", GRAPHS)
def test_its_mean_is_the_gradient(name: str) -> None:
    g = GRAPHS[name]()
    policy = {node: scg.Quadratic(matrix=matrix) for node, matrix in POLICIES[name].items()}
    program = stirred(scg.compile(g, policy))
    assert gap(integrated_gradient(g, program, points=6), scg.exact_gradient(g, points=16)) < 1e-9


@pytest.mark.parametrize("other", ["enumerate", "score"])
def test_it_composes_with_what_is_above(other: str) -> None:
    g = plated(reduce="sum")
    program = stirred(scg.compile(g, {"b": other, "z": "quadratic"}))
    assert gap(integrated_gradient(g, program, points=4), scg.exact_gradient(g, points=16)) < 1e-9


def test_replicates_are_estimated_each() -> None:
    g = scg.Graph()
    z = g.sample("z", Normal, loc=g.param("theta", of(0.4)[0]), scale=g.param("scale", of(0.7)[0]))
    g.cost("c", lambda z: z**3, z)
    program = stirred(scg.compile(g, "quadratic", samples=2))
    assert gap(integrated_gradient(g, program, samples=2, points=4), scg.exact_gradient(g, points=16)) < 1e-9


def quadratic_cost() -> scg.Graph:
    g = scg.Graph()
    z = g.sample("z", Normal, loc=g.param("theta", of(0.4, -0.9)), scale=g.param("scale", of(0.7, 1.2)))
    g.cost("c", lambda z: ((z @ BENT) * z).sum(-1) / 2 + (z * of(1.0, -0.7)).sum(-1), z)
    return g


def test_a_quadratic_cost_leaves_no_variance() -> None:
    g = quadratic_cost()
    program = scg.compile(g, scg.Quadratic(matrix="full"))
    (surface,) = (module for module in program.controls.modules() if isinstance(module, Surface))
    with torch.no_grad():
        surface.first.copy_(of(0.4, -0.9) @ BENT + of(1.0, -0.7))
        surface.second.copy_(BENT)
    for seed in range(4):
        assert gap(own(program, seed), scg.exact_gradient(g)) < 1e-12


def test_it_starts_as_the_path_derivative() -> None:
    one, other = scg.compile(chain(), "reparam"), scg.compile(chain(), "quadratic")
    assert gap(own(one, 3), own(other, 3)) < 1e-12


@pytest.mark.parametrize(("matrix", "left"), [("diagonal", 0.6), ("full", 0.05)])
def test_it_descends_the_variance(matrix: Any, left: float) -> None:
    program = scg.compile(quadratic_cost(), scg.Quadratic(matrix=matrix))

    def spread() -> float:
        draws = [torch.cat([*own(program, seed).values()]) for seed in range(1000, 1100)]
        return float(torch.stack(draws).var(0).sum())

    before = spread()
    optimizer = torch.optim.Adam(program.control_parameters(), lr=0.05)
    for seed in range(300):
        gradients(program, seed=seed)
        optimizer.step()
    assert spread() < left * before


def gamma() -> scg.Graph:
    g = scg.Graph()
    z = g.sample("z", Gamma, g.param("theta", of(2.0)[0]), of(1.0)[0])
    g.cost("c", lambda z: z**2, z)
    return g


def stepped() -> scg.Graph:
    g = scg.Graph()
    z = g.sample("z", Normal, loc=g.param("theta", of(0.4)[0]), scale=of(1.0)[0])
    g.cost("c", lambda z: 1.0 * (z > 0), z)
    return g


def above_a_bit() -> scg.Graph:
    g = scg.Graph()
    z = g.sample("z", Normal, loc=g.param("theta", of(0.4)[0]), scale=of(1.0)[0])
    b = g.sample("b", Bernoulli, logits=z)
    g.cost("c", lambda z, b: z**2 * b, z, b)
    return g


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: scg.Quadratic(matrix="low"), "matrix is one of"),  # type: ignore[arg-type]
        (lambda: scg.compile(gamma(), "quadratic"), 'a Gamma is no Normal.*Use "reparam"'),
        (lambda: scg.compile(stepped(), "quadratic"), 'Use .*"lax"'),
        (lambda: scg.compile(above_a_bit(), {"z": "quadratic"}), "'b' below it is discrete"),
    ],
)
def test_what_it_cannot_do_is_refused(make: Any, told: str) -> None:
    with pytest.raises(EstimatorError, match=told):
        make()


def test_single_precision_and_torch_compile() -> None:
    g = scg.Graph()
    z = g.sample("z", Normal, loc=g.param("theta", torch.tensor([0.4, -0.9])), scale=torch.tensor(0.5))
    g.cost("c", lambda z: z.sum(-1) ** 3, z)
    program = stirred(scg.compile(g, scg.Quadratic(matrix="full")))
    expected = own(program, 3)
    compiled = torch.compile(program, fullgraph=True, backend="aot_eager")
    program.zero_grad()
    compiled(seed=3).loss.backward()
    assert gap(expected, {name: p.grad for name, p in g.named_parameters()}) < 1e-5
